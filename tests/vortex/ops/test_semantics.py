"""Each op against the contract's formula, written here with loops over numpy scalars."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from vortex.dims import Dim
from vortex.graph import Format, Stage, TensorType
from vortex.ops import Args, Row, find_op, stage_ops

Array = np.ndarray
S, G, D = 5, 3, 8
RNG = np.random.default_rng(7)
Q = RNG.normal(size=(1, G, D)).astype(np.float32)
C = RNG.normal(size=(S, 2, D)).astype(np.float32)
E = RNG.normal(size=(S, 2, D)).astype(np.float32)
E[0, 0, :3] = C[0, 0, :3]  # equal elements, for the comparisons
ROW = Row(S, bos=1, eos=1)


def run(name: str, *arrays: Array, stage: Stage = Stage.INDEXER, **attrs: object) -> Array:
    """The reference semantics on one row; arrays with one entry are BATCHED."""
    op = find_op(stage, name)
    bound = op.bind((), attrs, stage)
    formats = [Format.BATCHED if len(array) == 1 else Format.RAGGED for array in arrays]
    types = tuple(
        TensorType(f, Dim(a.shape[1]), Dim(a.shape[2])) for f, a in zip(formats, arrays, strict=True)
    )
    found = op.result(stage, bound, types)
    out = op.reference(Args(bound, found), tuple(torch.from_numpy(array) for array in arrays), ROW).numpy()
    assert out.shape[1:] == (found.rows, found.cols)
    assert out.dtype == np.float32
    return out


def each(function: Callable[..., float], *arrays: Array) -> Array:
    """Element by element, with the broadcasting of the language."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    spread = [np.broadcast_to(array, shape) for array in arrays]
    out = np.empty(shape, np.float32)
    for at in np.ndindex(*shape):
        out[at] = function(*(float(array[at]) for array in spread))
    return out


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


BINARY: dict[str, Callable[[float, float], float]] = {
    "Maximum": max,
    "Minimum": min,
    "Multiply": lambda x, y: x * y,
    "WhereEqual": lambda x, y: 0.0 if x == y else -1e30,
    "WhereNotEqual": lambda x, y: 0.0 if x != y else -1e30,
    "WhereGreater": lambda x, y: 0.0 if x > y else -1e30,
    "WhereGreaterEqual": lambda x, y: 0.0 if x >= y else -1e30,
    "WhereLess": lambda x, y: 0.0 if x < y else -1e30,
    "WhereLessEqual": lambda x, y: 0.0 if x <= y else -1e30,
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("stage", list(Stage))
def test_binary(name: str, stage: Stage) -> None:
    close(run(name, C, E, stage=stage), each(BINARY[name], C, E))
    close(run(name, C[:, :1, :1], E, stage=stage), each(BINARY[name], C[:, :1, :1], E))
    close(run(name, Q[:, :1], C), each(BINARY[name], Q[:, :1], C))


def test_add_weighs_its_operands() -> None:
    close(run("Add", C, E, alpha=2.0, beta=-0.5), each(lambda x, y: 2.0 * x - 0.5 * y, C, E))


UNARY: dict[str, Callable[[float, float, float], float]] = {
    "Relu": lambda x, a, b: x if x >= a else b,
    "Sigmoid": lambda x, a, b: 1.0 / (1.0 + math.exp(b * x + a)),
    "Silu": lambda x, a, b: x / (1.0 + math.exp(b * x + a)),
    "Add_Mul": lambda x, a, b: b * x + a,
    "Abs": lambda x, a, b: abs(b * x + a),
    "Exp": lambda x, a, b: math.exp(b * x + a),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, -1.0), (0.25, 1.5), (-0.5, 0.0)])
def test_unary(name: str, alpha: float, beta: float) -> None:
    close(run(name, C, alpha=alpha, beta=beta), each(lambda x: UNARY[name](x, alpha, beta), C))


def test_relu_keeps_the_threshold_itself() -> None:
    x = np.array([[[0.9, 1.0, 1.1]]] * 2, np.float32)
    close(run("Relu", x, alpha=1.0, beta=5.0), np.array([[[5.0, 1.0, 1.1]]] * 2, np.float32))


def test_log_does_not_clamp() -> None:
    positive = np.abs(C) + 0.1
    close(run("Log", positive, alpha=0.5, beta=2.0), each(lambda x: math.log(2.0 * x + 0.5), positive))
    assert np.isnan(run("Log", -positive)).all()
    assert (run("Log", positive * 0) == -np.inf).all()


def test_defaults_of_the_unary_ops_are_the_published_ones() -> None:
    close(run("Relu", C), np.maximum(C, 0))
    close(run("Sigmoid", C), np.full_like(C, 0.5))
    close(run("Silu", C), C / 2)
    for name in ("Add_Mul", "Abs", "Exp"):
        close(run(name, C), {"Add_Mul": C, "Abs": np.abs(C), "Exp": np.exp(C)}[name])


REDUCE: dict[str, Callable[[list[float]], float]] = {
    "Max": max,
    "Min": min,
    "Mean": lambda xs: sum(xs) / len(xs),
    "Sum": sum,
    "L2Norm": lambda xs: math.sqrt(sum(x * x for x in xs)),
}


@pytest.mark.parametrize("name", REDUCE)
def test_reductions(name: str) -> None:
    rows = [[[REDUCE[name]([float(C[s, r, d]) for r in range(2)]) for d in range(D)]] for s in range(S)]
    cols = [[[REDUCE[name]([float(x) for x in C[s, r]])] for r in range(2)] for s in range(S)]
    over_blocks = [
        [[REDUCE[name]([float(C[s, r, d]) for s in range(1, S - 1)]) for d in range(D)] for r in range(2)]
    ]
    close(run(name, C, dim=1), np.array(rows, np.float32))
    close(run(name, C, dim=2), np.array(cols, np.float32))
    close(run(name, C, dim=0), np.array(over_blocks, np.float32))
    if name != "Sum":
        close(run(name, C, dim=2, stage=Stage.CACHE), np.array(cols, np.float32))


@pytest.mark.parametrize("name", REDUCE)
def test_no_scored_blocks_reduce_to_zero(name: str) -> None:
    op = find_op(Stage.INDEXER, name)
    bound = op.bind((0,), {}, Stage.INDEXER)
    for row in (Row(S, bos=3, eos=2), Row(2, bos=2, eos=2)):
        out = op.reference(Args(bound), (torch.from_numpy(C),), row)
        assert out.shape == (1, 2, D)
        assert not out.any()


@pytest.mark.parametrize("name", ["Max", "Min", "Mean", "L2Norm"])
def test_interleaved_reductions(name: str) -> None:
    want = [
        [[REDUCE[name]([float(x) for x in C[s, r, 4 * g : 4 * g + 4]]) for g in range(2)] for r in range(2)]
        for s in range(S)
    ]
    close(run(f"{name}Interleave", C, dim=2, k=4, stage=Stage.CACHE), np.array(want, np.float32))
    tall = RNG.normal(size=(S, 6, 3)).astype(np.float32)
    want = [
        [[REDUCE[name]([float(tall[s, 3 * g + i, d]) for i in range(3)]) for d in range(3)] for g in range(2)]
        for s in range(S)
    ]
    close(run(f"{name}Interleave", tall, dim=1, k=3, stage=Stage.CACHE), np.array(want, np.float32))


def test_gemm_is_y_x_transposed() -> None:
    want = np.zeros((S, 2, G), np.float32)
    for s, a, b in np.ndindex(S, 2, G):
        want[s, a, b] = sum(float(C[s, a, k]) * float(Q[0, b, k]) for k in range(D))
    close(run("GeMM", Q, C), want)
    close(run("GeMM", C, Q), want.transpose(0, 2, 1))


def test_gemv_is_a_dot_product() -> None:
    want = [[[sum(float(a) * float(b) for a, b in zip(Q[0, 0], C[s, 0], strict=True))]] for s in range(S)]
    close(run("GeMV", Q[:, :1], C[:, :1]), np.array(want, np.float32))


@pytest.mark.parametrize("axes", [(1, 2), (1,), (2,), 1, (2, 1)])
def test_kron(axes: object) -> None:
    named = {axes} if isinstance(axes, int) else set(axes)  # type: ignore[call-overload]
    x, y = RNG.normal(size=(S, 2, 3)).astype(np.float32), RNG.normal(size=(S, 4, 5)).astype(np.float32)
    if 1 not in named:
        y = y[:, :1]
    if 2 not in named:
        x = x[:, :, :1]
    rows = x.shape[1] * y.shape[1] if 1 in named else max(x.shape[1], y.shape[1])
    cols = x.shape[2] * y.shape[2] if 2 in named else max(x.shape[2], y.shape[2])
    want = np.zeros((S, rows, cols), np.float32)
    for s, i, k, j, m in np.ndindex(S, x.shape[1], x.shape[2], y.shape[1], y.shape[2]):
        row = i * y.shape[1] + j if 1 in named else max(i, j)
        col = k * y.shape[2] + m if 2 in named else max(k, m)
        want[s, row, col] = x[s, i, k] * y[s, j, m]
    close(run("Kron", x, y, dim=axes), want)


def test_kron_over_both_axes_is_numpys() -> None:
    found = run("Kron", C, E)
    for s in range(S):
        close(found[s], np.kron(C[s], E[s]))


def test_shapes() -> None:
    close(run("Transpose", C), C.transpose(0, 2, 1))
    close(run("Reshape", C, lead=-1, rows=8, cols=2), C.reshape(S, 8, 2))
    close(run("Reshape", run("Transpose", C), lead=-1, rows=4, cols=4), C.transpose(0, 2, 1).reshape(S, 4, 4))


def test_load_copies_a_field() -> None:
    op, field = find_op(Stage.INDEXER, "Load"), TensorType(Format.PAGED, Dim(2), Dim(D))
    found = op.result(Stage.INDEXER, {}, (field,))
    assert found == TensorType(Format.RAGGED, Dim(2), Dim(D))
    close(op.reference(Args({}, found), (torch.from_numpy(C),), ROW).numpy(), C)


@pytest.mark.parametrize(("start", "end", "dim"), [(0, 0, 1), (1, 2, 1), (0, 2, 1), (2, 8, 2), (8, 8, 2)])
def test_mask_slice(start: int, end: int, dim: int) -> None:
    want = np.full_like(C, -2.0)
    for s, r, d in np.ndindex(*C.shape):
        if start <= (r if dim == 1 else d) < end:
            want[s, r, d] = 3.0
    close(run("MaskSlice", C, start=start, end=end, dim=dim, alpha=3.0, beta=-2.0), want)
    assert not np.isnan(run("MaskSlice", C * np.nan, start=start, end=end, dim=dim)).any()


def test_fill() -> None:
    op, field = find_op(Stage.CACHE, "Fill"), TensorType(Format.PAGED, Dim(2), Dim(3))
    bound = op.bind((1.5,), {}, Stage.CACHE)
    found = op.result(Stage.CACHE, bound, (), field)
    assert torch.equal(op.reference(Args(bound, found), (), ROW), torch.full((1, 2, 3), 1.5))


@pytest.mark.parametrize("scale", [0.09, 1.0, -2.0, 0.0])
def test_softmax_over_scored_blocks(scale: float) -> None:
    want = np.zeros_like(C)
    for r, d in np.ndindex(2, D):
        powers = [math.exp(scale * float(C[s, r, d])) for s in range(1, S - 1)]
        for s in range(1, S - 1):
            want[s, r, d] = powers[s - 1] / sum(powers)
    close(run("Softmax", C, scale=scale), want)


def test_normalize_over_scored_blocks() -> None:
    want = np.zeros_like(C)
    for r, d in np.ndindex(2, D):
        norm = math.sqrt(sum(float(C[s, r, d]) ** 2 for s in range(1, S - 1)))
        for s in range(1, S - 1):
            want[s, r, d] = C[s, r, d] / norm
    close(run("Normalize", C), want)
    assert not run("Normalize", C * 0).any()


def selected(scores: list[float], k: int, bos: int = 1, eos: int = 1) -> list[int]:
    op = find_op(Stage.INDEXER, "topK")
    score = torch.tensor(scores)[:, None, None]
    return op.reference(Args({}), (score,), Row(len(scores), bos, eos, k)).tolist()  # type: ignore[no-any-return]


def test_topk_ties_nans_and_reserved_blocks() -> None:
    nan, inf = math.nan, math.inf
    assert selected([9, 1, 5, 3, 5, 9], 2) == [2, 4]
    assert selected([9, 5, 5, 5, 5, 9], 2) == [1, 2]
    assert selected([9, nan, 1, nan, -inf, 9], 2) == [2, 4]
    assert selected([9, nan, 1, nan, -inf, 9], 3) == [1, 2, 4]
    assert selected([9, -0.0, 0.0, inf, 9], 2) == [1, 3]
    assert selected([9, 9], 3) == []
    assert selected([9, 2, 3, 9], 5) == [1, 2]


def test_save_is_its_operand_in_the_format_of_the_field() -> None:
    op, field = find_op(Stage.INDEXER, "Save"), TensorType(Format.PAGED, Dim(2), Dim(D))
    x = TensorType(Format.RAGGED, Dim(2), Dim(D))
    found = op.result(Stage.INDEXER, {}, (x,), field)
    assert found.format is Format.PAGED
    close(op.reference(Args({}, found), (torch.from_numpy(C),), ROW).numpy(), C)
    slot = TensorType(Format.SLOTTED, Dim(G), Dim(D))
    q = TensorType(Format.BATCHED, Dim(G), Dim(D))
    assert op.result(Stage.INDEXER, {}, (q,), slot).format is Format.SLOTTED


def chosen(name: str, inputs: tuple[torch.Tensor, ...], row: Row, **attrs: object) -> list[int]:
    op = find_op(Stage.INDEXER, name)
    return op.reference(Args(op.bind((), attrs, Stage.INDEXER)), inputs, row).tolist()  # type: ignore[no-any-return]


def test_a_union_of_two_selections() -> None:
    one, two = (
        torch.tensor(scores)[:, None, None] for scores in ([9.0, 5, 1, 4, 3, 9], [9.0, 0, 2, 7, 1, 9])
    )
    row = Row(6, bos=1, eos=1, k=1)  # the plan's k is not theirs
    picks = chosen("TopK", (one,), row, k=3), chosen("TopK", (two,), row, k=2)
    assert picks == ([1, 3, 4], [2, 3])
    assert chosen("Union", tuple(map(torch.tensor, picks)), row) == [1, 2, 3, 4]
    assert chosen("TopK", (one,), row, k=100) == [1, 2, 3, 4]


def test_conv1d_is_causal_over_scored_blocks() -> None:
    x = np.array([100, 1, 2, 3, 4, 100], np.float32)[:, None, None]
    op = find_op(Stage.INDEXER, "Conv1d")
    found = op.bind(([[[1.0]], [[10.0]], [[0.5]]],), {"dtype": "float32"}, Stage.INDEXER)
    out = op.reference(Args(found), (torch.from_numpy(x),), Row(6, 1, 1))
    # y[p] = x[p] + 10 x[p - 1] + 0.5 x[p - 2], and nothing lies before block 1.
    assert out.flatten().tolist() == [0.0, 1.0, 2 + 10, 3 + 20 + 0.5, 4 + 30 + 1, 0.0]
    rounded = op.bind(([[[1.001]]],), {}, Stage.INDEXER)  # bfloat16 has 8 bits: 1.001 is stored as 1
    assert op.reference(Args(rounded), (torch.from_numpy(x),), Row(6, 1, 1)).flatten().tolist()[1:5] == [
        1,
        2,
        3,
        4,
    ]


def test_conv1d_is_depthwise() -> None:
    taps = RNG.normal(size=(2, 2, D)).astype(np.float32)
    want = np.zeros_like(C)
    for p, r, d in np.ndindex(S, 2, D):
        if 1 <= p < S - 1:
            want[p, r, d] = taps[0, r, d] * C[p, r, d] + (taps[1, r, d] * C[p - 1, r, d] if p > 1 else 0)
    close(run("Conv1d", C, weight=taps, dtype="float32"), want)


def at_layer(name: str, layer: int, inputs: tuple[torch.Tensor, ...], **attrs: object) -> torch.Tensor:
    op = find_op(Stage.INDEXER, name)
    return op.reference(Args(op.bind((), attrs, Stage.INDEXER), layer=layer), inputs, ROW)


def test_parameter_takes_the_row_of_its_layer() -> None:
    value = [[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]]

    def row(layer: int, **attrs: object) -> list[float]:
        return at_layer("Parameter", layer, (), **attrs).flatten().tolist()  # type: ignore[no-any-return]

    assert [row(layer, value=value) for layer in (0, 2, 7)] == [[1, 2], [5, 6], [5, 6]]
    assert [row(layer, value=value, layer_lookup={0: 2, 9: 0}) for layer in (0, 1, 9)] == [
        [5, 6],
        [3, 4],
        [1, 2],
    ]
    assert row(5, value=[[1.0], [2.0]]) == [1, 2]


def test_learned_query() -> None:
    first, second = (RNG.normal(size=(2, G, D, 4)).astype(np.float32) for _ in range(2))
    q = torch.from_numpy(Q)
    want = np.zeros((1, 1, D), np.float64)
    for h in range(G):
        small = [sum(float(first[1, h, d, r]) * float(Q[0, h, d]) for d in range(D)) for r in range(4)]
        for d in range(D):
            want[0, 0, d] += 0.5 * sum(float(second[1, h, d, r]) * small[r] for r in range(4))
    weights: dict[str, object] = {"Wq": first, "Wk": second, "scaling": 0.5}
    close(at_layer("LearnedQuery", 1, (q,), **weights).numpy(), want)
    close(at_layer("LearnedQuery", 8, (q,), layer_lookup={8: 1}, **weights).numpy(), want)
    for layer, lookup in ((2, None), (1, {8: 1})):  # no row: the sum of the heads, not scaled
        close(
            at_layer("LearnedQuery", layer, (q,), layer_lookup=lookup, **weights).numpy(),
            Q.sum(1, keepdims=True),
        )
    close(at_layer("LearnedQuery", 0, (q,)).numpy(), Q.sum(1, keepdims=True))
    square = RNG.normal(size=(1, G, D, D)).astype(np.float32)  # alone: the other factor is the identity
    close(
        at_layer("LearnedQuery", 0, (q,), Wk=square).numpy(), np.einsum("hde,bhe->bd", square[0], Q)[:, None]
    )
    close(
        at_layer("LearnedQuery", 0, (q,), Wq=square).numpy(), np.einsum("hed,bhe->bd", square[0], Q)[:, None]
    )


def test_the_whole_table_is_tested_here() -> None:
    tested = {*BINARY, *UNARY, *REDUCE, *(f"{name}Interleave" for name in REDUCE if name != "Sum")}
    tested |= {"Add", "Log", "GeMM", "GeMV", "Kron", "Transpose", "Reshape", "MaskSlice", "Fill", "Softmax"}
    tested |= {"Normalize", "topK", "approxTopK", "Load", "Save", "TopK", "Union", "Conv1d", "Parameter"}
    tested |= {"LearnedQuery"}
    assert {name for stage in Stage for name in stage_ops(stage)} == tested
