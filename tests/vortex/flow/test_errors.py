"""What the language does not allow: each error names the op, the line of the user's file, the shapes in
symbols, and what to write instead. What is legal and not meant is a warning."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from tests.vortex.flow.flows import flow
from tests.vortex.flow.wrong_programs import wrong_programs
from tests.vortex.flow.wrong_programs.mla import mla
from tests.vortex.flow.wrong_programs.program import FIELDS, SETUP, WrongProgram, changed, with_request
from vortex.config import VortexConfig
from vortex.errors import FlowAdvice, FlowLoadError, FlowTypeError, VortexError
from vortex.flow import load_graph, trace_flow, trace_source
from vortex.flow.loader import load_source
from vortex.graph import Geometry

PROGRAMS = wrong_programs()


def error_of(source: str, filename: str = "flow.py") -> VortexError:
    with pytest.raises(VortexError) as caught:
        trace_source(source, filename)
    return caught.value


def test_the_frames_are_well_typed() -> None:
    assert len(trace_source(flow()).indexer) == 3
    assert len(trace_source(with_request(flow(indexer=SETUP, fields=FIELDS))).indexer) == 9
    assert trace_source(mla()).kind == "mla"


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name[:60])
def test_the_error_says_what_where_and_what_instead(program: WrongProgram) -> None:
    error = error_of(program.source)
    text = str(error)
    assert isinstance(error, program.error), text
    assert program.says in text
    assert program.fix in text
    assert error.line == program.line, text
    assert program.line is None or re.search(rf"\bline {program.line}\b", text), text
    if isinstance(error, FlowTypeError):
        assert error.op == program.op, text
        assert error.shapes == program.shapes, text
        assert all(shape in text for shape in program.shapes)
        where = [*([error.op] if error.op else []), f"line {error.line}"]
        assert text.startswith(f"{', '.join(where)}: "), text


INTERNAL = re.compile(
    r"Traceback|0x|<class|<function|<module|\bobject at|vTensor'|Opaque|Cache(View|Op)|IndexerOp|TraceContext"
    r"|NoneType|\b_[a-z]+\b|vortex/|\bDim\("
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name[:60])
def test_the_error_is_one_or_two_sentences_for_people(program: WrongProgram) -> None:
    text = str(error_of(program.source))
    assert "\n" not in text
    assert len(text) < 600
    assert not INTERNAL.search(text), text
    assert len(re.findall(r"\. [A-Z]", text)) <= 1, text
    assert not text.endswith((".", ":", " "))


def test_files_fail_in_the_same_words(tmp_path: Path) -> None:
    """On the trusted path, from a real file, `import torch` being the real one."""
    for number, program in enumerate(PROGRAMS):
        file = tmp_path / f"wrong_{number}.py"
        source = program.source.replace('"tested"', f'"wrong_{number}"')
        file.write_text(source)
        with pytest.raises(VortexError) as caught:
            load_graph(file)
        expected = error_of(source, str(file))
        assert type(caught.value) is type(expected)
        assert str(caught.value) == str(expected)
        assert caught.value.line == expected.line


def test_published_words() -> None:
    """What the published package says is said in the same places."""
    for part, source in (
        ("must not declare 'k' key", flow(fields='{"k": (1, head_dim)}')),
        ("must not declare 'v' key", flow(fields='{"v": (1, head_dim)}')),
        ("must not declare 'latent' key", mla(field='"latent": (1, 1)')),
        ("does not contain @register", changed('@register("tested")', "")),
        ("last dimension mismatch", flow(indexer="GeMM()(q, Transpose()(q, ctx=ctx), ctx=ctx)")),
        ("not broadcastable", flow(indexer="Add()(q, cache['k'], ctx=ctx)")),
        ("not broadcastable", flow(indexer="Multiply()(q, cache['k'], ctx=ctx)")),
    ):
        assert part in str(error_of(source))
    with pytest.raises(ValueError, match=r"(?s)block_size.*must be a positive power of 2"):
        VortexConfig(module_name="x", block_size=24)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("q + q", r"operator \+ .*Add"),
        ("q - q", r"operator - .*beta=-1.0"),
        ("q / 2", "operator / .*Add_Mul"),
        ("q == q", "operator == .*WhereEqual"),
        ("q ** 2", r"operator \*\* .*Multiply"),
        ("q % 2", "operator % .*Use ops"),
        ("q << 1", "operator << .*Use ops"),
        ("+q", r"operator \+ .*use x as it is"),
        ("max(q, q)", "operator > .*Maximum"),
        ("min(q, q)", "operator < .*Minimum"),
        ("sum(q)", r"iteration .*Sum\(dim\)"),
        ("abs(q)", r"abs\(\) .*Abs"),
        ("round(q)", r"round\(\) .*Use ops"),
        ("divmod(q, 2)", r"divmod\(\) .*Use ops"),
        ("q in [1]", "operator == .*WhereEqual"),
        ("q.max()", r"\.max .*Max\(dim=1\)"),
        ("q.T", r"\.T .*Transpose"),
        ("q.transpose(1, 2)", r"\.transpose .*Transpose"),
        ("q.view(4, 4)", r"\.view .*Reshape"),
        ("q.softmax(0)", r"\.softmax .*Softmax\(dim=0"),
        ("q.topk(3)", r"\.topk .*topK"),
        ("q.argmax()", r"\.argmax .*topK"),
        ("q.cumsum(0)", r"\.cumsum .*Conv1d"),
        ("q.matmul(q)", r"\.matmul .*GeMM"),
        ("q.norm()", r"\.norm .*L2Norm"),
        ("q.exp_()", r"\.exp_ .*Exp"),
        ("q.float()", r"\.float .*float32"),
        ("q.any()", r"\.any .*Max\(dim\)"),
        ("q.data = 1", r"assignment to \.data"),
        ("list(q)", "iteration"),
        ("torch.cat([q, q])", r"torch.cat .*\(got q \[1, group, head_dim\], q .*Score each part"),
        ("torch.nn.functional.softmax(q)", "torch.nn.functional.softmax .*Softmax"),
        ("torch.zeros(3)", "torch.zeros .*Fill"),
        ("torch.Tensor([1])", "torch.Tensor cannot be used"),
    ],
)
def test_native_operations_name_the_op(expression: str, message: str) -> None:
    program = WrongProgram(expression, flow(indexer=expression + "  # <- here"), None, "", "")
    error = error_of(program.source)
    assert re.search(message, str(error)), str(error)
    assert error.line == program.line


def test_the_real_torch_is_refused_in_the_same_words() -> None:
    """On the trusted path of a process that has torch; also functions that are written in Python."""
    import torch

    assert torch is not None
    for expression, message in (
        ("torch.matmul(q, q)", "torch.matmul.*GeMM"),
        ("torch.softmax(q, 0)", "torch.softmax.*Softmax"),
        ("torch.einsum('ij,kj->ik', q, q)", "torch.einsum.*GeMM"),
        ("torch.nn.functional.relu(q)", "torch.relu.*Relu"),
        ("GeMM()(q, torch.zeros(3), ctx=ctx)", "the operand y must be a tensor of the flow, got a Tensor"),
    ):
        program = WrongProgram(expression, flow(indexer=expression + "  # <- here"), None, "", "")
        (cls,) = load_source(program.source, trusted=True).values()
        with pytest.raises(FlowTypeError, match=message) as caught:
            trace_flow(cls)
        assert caught.value.line == program.line


def test_metadata_may_be_asked_for() -> None:
    statement = """
        assert q.shape[0] == 0 and q.shape[1:] == (4, 128) and q.ndim == q.dim() == 3
        assert cache['k'].size(1) == 16 and cache['k'].size() == cache['k'].shape and q.numel() == 0
        assert str(q.dtype) == 'torch.bfloat16' and str(q.device.type) == 'cpu' and not q.needs_padding()
        assert sorted(cache) == ['c', 'k', 'v'] and 'k' in cache and 'x' not in cache and len(cache) == 3
        assert f'{q}' == repr(q) == 'q [1, group, head_dim]' and {q: 1}[q] == 1 and q is not None"""
    trace_source(flow(indexer=statement))


@pytest.mark.parametrize(
    "source",
    [
        changed("super().__init__()", "pass"),
        changed("def __init__(self):\n        super().__init__()\n        pass\n", ""),
        flow(init="self.unused = Mean()"),
        flow(indexer="print(q); unused = Mean()(q, ctx=ctx)"),
        flow(indexer="m = Mean()(x := q, ctx=ctx)"),
        "\ufeff" + flow(),
    ],
    ids=["no super", "no __init__", "unused op", "unused result", "walrus", "byte order mark"],
)
def test_what_is_lenient(source: str, tmp_path: Path) -> None:
    file = tmp_path / "lenient.py"
    file.write_text(source)
    name = f"lenient_{abs(hash(source))}"
    file.write_text(source.replace('"tested"', f'"{name}"'))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FlowAdvice)
        assert load_graph(file).hash == trace_source(flow()).hash


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (flow(head="import vortex_torch.nothing  # <- here"), "No module named 'vortex.nothing'"),
        (
            flow(head="import numpy", indexer="numpy.mean(q)  # <- here"),
            r"\.mean is not defined .*Mean\(dim=1\)",
        ),
        (flow(head="import functools", indexer="functools.reduce(max, [q, q])  # <- here"), "Maximum"),
    ],
)
def test_other_modules(source: str, message: str) -> None:
    program = WrongProgram("", source, None, "", "")
    error = error_of(source)
    assert re.search(message, str(error))
    assert error.line == program.line


def test_an_mla_flow_on_a_model_with_k_and_v() -> None:
    with pytest.raises(
        FlowTypeError, match=r"needs kv_lora_rank and qk_rope_head_dim.*Write a vFlow"
    ) as caught:
        trace_source(mla(), geometry=Geometry())
    assert caught.value.line == mla()[: mla().index("class Tested")].count("\n") + 1


def test_tensors_are_not_kept_between_traces() -> None:
    """An object may be traced again and again."""
    statement = "Mean()(getattr(self, 'kept', q), ctx=ctx)  # <- here\n        self.kept = q"
    program = WrongProgram("", flow(indexer=statement), None, "", "")
    (cls,) = load_source(program.source).values()
    tested = cls()
    assert len(trace_flow(tested).indexer) == 4
    with pytest.raises(FlowTypeError, match="the operand x is kept from an earlier trace") as caught:
        trace_flow(tested)
    assert caught.value.line == program.line


def test_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "latin.py"
    file.write_bytes(flow(head="# caf\u00e9").encode("latin-1"))
    with pytest.raises(
        FlowLoadError, match=r"latin\.py, line 5: it is not UTF-8\. Save it as UTF-8"
    ) as caught:
        load_graph(file)
    assert caught.value.line == 5


def advice_on(source: str) -> list[str]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        trace_source(source)
    assert all(warning.category is FlowAdvice for warning in heard)
    return [str(warning.message) for warning in heard]


def test_calls_without_loc_or_ctx_are_legal_and_get_advice() -> None:
    cache = "C.Max()(cache['k'], ctx=ctx)\n        C.Min()(cache['k'], loc=loc); C.Abs()(cache['k'])"
    source = flow(cache=cache, indexer="Mean()(q); Max()(q)\n        Min()(q); Abs()(q)")
    at = source[: source.index("C.Max")].count("\n") + 1
    scored = source[: source.index("Mean()(q);")].count("\n") + 1
    assert sorted(advice_on(source)) == [
        f"Tested: ops are called without ctx: Min (line {at + 1}), Mean (line {scored}), "
        f"Max (line {scored}), Min (line {scored + 1}) and 1 more. Write op(..., ctx=ctx)",
        f"Tested: ops are called without loc and ctx: Abs (line {at + 1}). Write op(..., loc=loc, ctx=ctx)",
        f"Tested: ops are called without loc: Max (line {at}). Write op(..., loc=loc)",
    ]
    with pytest.warns(FlowAdvice):
        assert trace_source(source).hash == trace_source(flow()).hash


def test_nothing_to_say_of_loc_and_ctx_by_position() -> None:
    assert advice_on(flow(cache="C.Max()(cache['k'], None, loc, ctx)", indexer="Mean()(q, ctx)")) == []


def test_fields_without_a_use_get_advice_with_their_lines(tmp_path: Path) -> None:
    source = flow(
        fields='{"c": (1, head_dim), "full": (1, head_dim), "empty": (1, 1), "spare": (1, 1)}',
        cache="C.Max()(cache['k'], cache['full'], loc=loc, ctx=ctx)",
        indexer="score = GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx)",
        end="topK()(Multiply()(score, cache['empty'], ctx=ctx), o, ctx=ctx)",
    )
    file = tmp_path / "unused_fields.py"
    file.write_text(source.replace('"tested"', '"unused_fields"'))
    written, read = (source[: source.index(part)].count("\n") + 1 for part in ("C.Max", "topK()("))
    with pytest.warns(FlowAdvice) as heard:
        load_graph(file)
    assert {str(warning.message) for warning in heard} == {
        f"{file}: the field 'full' is written and never read (line {written})",
        f"{file}: the field 'empty' is never written and reads as zeros (line {read})",
        f"{file}: the field 'spare' is neither written nor read; remove it from create_cache",
    }
