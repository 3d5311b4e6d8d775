"""Everything that the language does not allow: each error names the op, the line of the user's file, the
shapes in symbols, and what would fit."""

from __future__ import annotations

import re

import pytest

from tests.vortex.flow.flows import flow
from vortex.errors import FlowLoadError, FlowTypeError
from vortex.flow import trace_source


def error_of(**parts: str) -> FlowTypeError:
    with pytest.raises(FlowTypeError) as caught:
        trace_source(flow(**parts))
    return caught.value


def test_the_frame_is_well_typed() -> None:
    assert len(trace_source(flow()).indexer) == 3


INDEXER = [
    # statement, op, what the message must say
    (
        "GeMM()(q, Transpose()(cache['c'], ctx=ctx), ctx=ctx)",
        "GeMM",
        r"last dimension mismatch.*Transpose\(\) y first",
    ),
    (
        "GeMM()(q, GeMM()(q, cache['c'], ctx=ctx), ctx=ctx)",
        "GeMM",
        r"got x \[1, group, head_dim\], y \[S, 1, group\]",
    ),
    ("Add()(q, cache['k'], ctx=ctx)", "Add", "group and block_size are not broadcastable"),
    ("GeMV()(q, cache['c'], ctx=ctx)", "GeMV", "must be vectors"),
    ("GeMV()(cache['c'], cache['c'], ctx=ctx)", "GeMV", "x must be BATCHED"),
    ("Softmax()(q, ctx=ctx)", "Softmax", "has none"),
    ("Softmax()(cache['c'], ctx=ctx)", "Softmax", r"Load\(\) the field first"),
    ("Mean(dim=0)(cache['c'], ctx=ctx)", "Mean", r"Load\(\) the field first"),
    ("Load()(q, ctx=ctx)", "Load", "copies a cache field"),
    (
        "MaskSlice(0, 200, 2)(q, ctx=ctx)",
        "MaskSlice",
        r"\[0, 200\) is out of bounds for dim 2 of size head_dim",
    ),
    ("MaskSlice(5, 3, 2)(q, ctx=ctx)", "MaskSlice", "out of bounds"),
    ("Reshape(-1, 7, 9)(q, ctx=ctx)", "Reshape", "group x head_dim = 512 elements to 7 x 9"),
    ("Reshape(2, 4, 128)(q, ctx=ctx)", "Reshape", "leading axis"),
    ("Kron(dim=(1,))(q, GeMM()(q, cache['c'], ctx=ctx), ctx=ctx)", "Kron", "Name axis 2 in dim"),
    (
        "topK()(GeMM()(q, cache['c'], ctx=ctx), o, ctx=ctx)",
        "topK",
        r"one score per block.*Reduce dim 2 \(group\)",
    ),
    ("topK()(Mean(dim=2)(Mean()(q, ctx=ctx), ctx=ctx), o, ctx=ctx)", "topK", "same for all"),
    ("topK()(q, ctx=ctx)", "topK", r"takes 2 arguments \(score, o\), got 1.*op\(score, o, ctx=ctx\)"),
    ("topK()(o, q, ctx=ctx)", "topK", "o cannot be the operand"),
    ("Mean()(o, ctx=ctx)", "Mean", "o cannot be the operand"),
    ("Mean()(q, q, ctx=ctx)", "Mean", r"takes 1 argument \(x\), got 2"),
    ("Mean()(1.0, ctx=ctx)", "Mean", "must be a tensor of the flow, got 1.0"),
    ("Mean(dim=3)(q, ctx=ctx)", "Mean", "one of 0, 1, 2"),
    ("Mean(axis=1)(q, ctx=ctx)", "Mean", "unknown constructor argument 'axis'"),
    ("Mean(1, 2)(q, ctx=ctx)", "Mean", "at most 1 constructor arguments"),
    ("Mean(1, dim=2)(q, ctx=ctx)", "Mean", "given twice"),
    ("MaskSlice(1)(q, ctx=ctx)", "MaskSlice", "needs the constructor argument 'end'"),
    ("Add_Mul(alpha='x')(q, ctx=ctx)", "Add_Mul", "alpha must be a number"),
    ("Add_Mul(alpha=float('inf'))(q, ctx=ctx)", "Add_Mul", "finite.*-1e30"),
    ("Add_Mul(beta=True)(q, ctx=ctx)", "Add_Mul", "must be a number"),
    ("approxTopK(1.5)(q, o, ctx=ctx)", "approxTopK", r"in \[0, 1\]"),
    ("C.Mean()(q, ctx=ctx)", "Mean", "op of vortex.cache, called in forward_indexer"),
    (
        "m = Mean(); m(q, ctx=ctx); m(q, ctx=ctx)",
        "Mean",
        r"called twice \(first in line 23\).*one instance per call site",
    ),
]


@pytest.mark.parametrize(("statement", "op", "message"), INDEXER, ids=range(len(INDEXER)))
def test_indexer(statement: str, op: str, message: str) -> None:
    error = error_of(indexer=statement)
    assert re.search(message, str(error)), str(error)
    assert error.op == op
    assert error.line == 23
    assert str(error).startswith(f"{op}, line 23: ")


CACHE = [
    ("C.Mean(dim=0)(cache['k'], loc=loc, ctx=ctx)", "dim must be 1 or 2, got 0.*vortex.indexer.Load"),
    ("C.Mean()(cache['k'], cache['c'], loc=loc, ctx=ctx)", "'c' is already written by Mean in line 18"),
    ("C.Max()(cache['k'], cache['v'], loc=loc, ctx=ctx)", "'v' belongs to the engine"),
    (
        "C.Max(dim=2)(cache['k'], cache['d'], loc=loc, ctx=ctx)",
        r"\[1, block_size, 1\] does not fit the field \[1, 2, head_dim\]",
    ),
    ("C.Max()(cache['k'], cache['nope'], loc=loc, ctx=ctx)", "unknown cache field 'nope'.*known: c, d, k, v"),
    (
        "C.Max()(cache['k'], C.Min()(cache['k'], loc=loc, ctx=ctx), loc=loc, ctx=ctx)",
        "output must be a cache field",
    ),
    ("C.Max()(cache['k'], cache['d'], output=cache['d'], loc=loc, ctx=ctx)", "output is given twice"),
    ("C.MaxInterleave(dim=1, k=3)(cache['k'], loc=loc, ctx=ctx)", "block_size is not divisible by k=3"),
    ("C.MaxInterleave(dim=1, k=0)(cache['k'], loc=loc, ctx=ctx)", "k must be at least 1"),
    ("C.Fill()(loc=loc, ctx=ctx)", "needs the field that it writes"),
    (
        "Mean()(cache['k'], cache['c'], loc=loc, ctx=ctx)",
        "op of vortex.indexer, called in forward_cache.*Import the one of vortex.cache",
    ),
    ("Softmax()(cache['k'], loc=loc, ctx=ctx)", "called in forward_cache.*apply it in forward_indexer"),
    ("cache['c'] = cache['k']", "cannot be assigned.*Give the op the field as its output"),
    ("loc.shape", "loc.shape cannot be used"),
]


@pytest.mark.parametrize(("statement", "message"), CACHE, ids=range(len(CACHE)))
def test_cache(statement: str, message: str) -> None:
    error = error_of(cache=statement, fields='{"c": (1, head_dim), "d": (2, head_dim)}')
    assert re.search(message, str(error)), str(error)
    assert error.line == 19


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("q * 2", r"operator \* .*Multiply"),
        ("2 * q", r"operator \* .*Multiply"),
        ("q @ cache['k']", "operator @ .*GeMM"),
        ("q + q", r"operator \+ .*Add"),
        ("q - q", r"operator - .*beta=-1.0"),
        ("q / 2", "operator / .*Add_Mul"),
        ("-q", r"operator - .*Add_Mul\(beta=-1.0\)"),
        ("q > 0", "operator > .*WhereGreater"),
        ("q == q", "operator == .*WhereEqual"),
        ("q ** 2", r"operator \*\* .*Multiply"),
        ("q[0]", "indexing .*MaskSlice"),
        ("q.mean(1)", r"\.mean .*Mean\(dim=1\)"),
        ("q.max()", r"\.max .*Max\(dim=1\)"),
        ("q.T", r"\.T .*Transpose"),
        ("q.transpose(1, 2)", r"\.transpose .*Transpose"),
        ("q.view(4, 4)", r"\.view .*Reshape"),
        ("q.softmax(0)", r"\.softmax .*Softmax\(dim=0"),
        ("q.topk(3)", r"\.topk .*topK"),
        ("q.matmul(q)", r"\.matmul .*GeMM"),
        ("q.norm()", r"\.norm .*L2Norm"),
        ("q.exp_()", r"\.exp_ .*Exp"),
        ("q.float()", r"\.float .*float32"),
        ("q.maximun(q)", r"\.maximun .*Maximum"),
        ("q.data = 1", r"assignment to \.data"),
        ("abs(q)", r"abs\(\) .*Abs"),
        ("len(q)", r"len\(\)"),
        ("float(q)", r"float\(\)"),
        ("list(q)", "iteration"),
        ("1 if q else 2", "truth value"),
        ("torch.matmul(q, q)", "torch.matmul cannot be used .*GeMM"),
        ("torch.nn.functional.softmax(q)", "torch.nn.functional.softmax .*Softmax"),
        ("torch.zeros(3)", "torch.zeros .*Fill"),
        ("torch.Tensor([1])", "torch.Tensor cannot be used"),
    ],
)
def test_native_operations_name_the_op(expression: str, message: str) -> None:
    error = error_of(indexer=expression)
    assert re.search(message, str(error)), str(error)
    assert error.line == 23


def test_the_real_torch_is_refused_in_the_same_words() -> None:
    """On the trusted path of a process that has torch, `import torch` is the real one."""
    import torch

    from vortex.flow.loader import load_source, trace_flow

    assert torch is not None
    for expression, message in (
        ("torch.matmul(q, q)", "torch.matmul.*GeMM"),
        ("torch.softmax(q, 0)", "torch.softmax.*Softmax"),
    ):
        (cls,) = load_source(flow(indexer=expression), trusted=True).values()
        with pytest.raises(FlowTypeError, match=message) as caught:
            trace_flow(cls)
        assert caught.value.line == 23


def test_metadata_may_be_asked_for() -> None:
    statement = """
        assert q.shape[0] == 0 and q.shape[1:] == (4, 128) and q.ndim == q.dim() == 3
        assert cache['k'].size(1) == 16 and cache['k'].size() == cache['k'].shape and q.numel() == 0
        assert str(q.dtype) == 'torch.bfloat16' and str(q.device.type) == 'cpu' and not q.needs_padding()
        assert sorted(cache) == ['c', 'k', 'v'] and 'k' in cache and 'x' not in cache and len(cache) == 3"""
    trace_source(flow(indexer=statement))


def test_nothing_claims_o() -> None:
    error = error_of(end="pass")
    assert "nothing claims o" in str(error)
    assert "topK()(score, o, ctx=ctx)" in str(error)
    assert error.line == 21


def test_two_claims() -> None:
    score = "topK()(GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx), o, ctx=ctx)"
    error = error_of(indexer=score)
    assert "o is claimed twice, first by topK in line 23" in str(error)
    assert error.line == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('{"k": (1, head_dim)}', "must not declare 'k' key"),
        ('{"c": (1, 2), "v": (1, head_dim)}', "must not declare 'v' key"),
        ('{"c": (1, 2, 3)}', "needs two dims"),
        ('{"c": 5}', "needs two dims"),
        ('{"c": (0, head_dim)}', "at least 1"),
        ('{"c": (1.5, head_dim)}', "must be integers"),
        ('{"c": (True, head_dim)}', "must be integers"),
        ('{"a b": (1, 1)}', "identifier"),
        ("{3: (1, 1)}", "identifier"),
        ('{"c": (10**12, 1)}', "larger than any real size"),
        ("[1]", "must return a dict"),
        ("None", "must return a dict"),
        ("{str(i): (1, 1) for i in range(100)}", "identifier"),
        ('{f"f{i}": (1, 1) for i in range(100)}', "at most 64 fields"),
    ],
)
def test_fields(fields: str, message: str) -> None:
    error = error_of(fields=fields)
    assert message in str(error)
    assert error.line == 12


def test_whatever_else_the_author_raises_has_a_line() -> None:
    assert "forward_indexer raised ZeroDivisionError" in str(error_of(indexer="1 / 0"))
    assert error_of(indexer="1 / 0").line == 23
    assert "create_cache raised AssertionError: no" in str(error_of(create="assert head_dim == 7, 'no'"))
    assert error_of(create="assert head_dim == 7, 'no'").line == 14


def test_missing_methods() -> None:
    source = flow().replace("def forward_cache", "def forward_nothing")
    with pytest.raises(FlowTypeError, match="Tested does not define forward_cache"):
        trace_source(source)


def test_values_do_not_cross_the_stages() -> None:
    error = error_of(cache="self.kept = cache['k']", indexer="Mean()(self.kept, ctx=ctx)")
    assert "belongs to forward_cache" in str(error)
    assert error.line == 23


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from vortex_torch.cache import Sum", "line 5.*Sum is an op of vortex.indexer, not of vortex.cache"),
        ("from vortex_torch.indexer import Meen", "unknown op 'Meen'; did you mean 'Mean'"),
        ("from vortex_torch.indexer import Fill", "Fill is an op of vortex.cache"),
        ("import vortex_torch.nothing", "No module named"),
        ("1 / 0", "line 5: ZeroDivisionError"),
        ("def f(:", "line 5: SyntaxError"),
        ("x = '\\0'; y = 1 +", "SyntaxError"),
    ],
)
def test_files_that_do_not_load(line: str, message: str) -> None:
    with pytest.raises(FlowLoadError, match=message):
        trace_source(flow(head=line))


def test_errors_in_constructors_have_the_line() -> None:
    error = error_of(init="self.op = Mean(dim=7)")
    assert error.op == "Mean"
    assert error.line == 10
