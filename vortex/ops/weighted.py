"""Ops with weights of their own: Parameter, LearnedQuery, Conv1d. Those of the first two may differ between
the layers of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, Row
from vortex.ops.emit import Emit
from vortex.ops.params import AnyParam, DtypeParam, FloatParam, LookupParam, WeightParam, lookup
from vortex.ops.registry import define
from vortex.ops.rules import INDEXER, block_axis, masked, require_blocks, same_as_x, sized
from vortex.weights import Weight

if TYPE_CHECKING:
    import torch


def _check_lookup(call: Call, rows: int) -> None:
    for layer, row in _lookup(call.args).items():
        if row >= rows:
            call.fail(
                f"layer_lookup gives layer {layer} row {row} of {rows}",
                f"Rows are 0 to {rows - 1}" if rows else "Give Wq or Wk, or leave layer_lookup out",
            )


def _lookup(args: Args) -> dict[int, int]:
    """Model layer -> row of the weights."""
    return lookup(args.values["layer_lookup"])


def _parameter(call: Call) -> TensorType:
    shape = _given(call.args, "value").shape
    _check_lookup(call, shape[0] if len(shape) == 3 else 1)
    return TensorType(Format.PARAMETER, Dim(shape[-2]), Dim(shape[-1]))


def _given(args: Args, name: str) -> Weight:
    weight = args.weight(name)
    assert weight is not None
    return weight


def _parameter_value(args: Args, device: torch.device | str) -> torch.Tensor:
    value = _given(args, "value").torch(device)
    if value.dim() == 2:
        return value
    return value[_lookup(args).get(args.layer, min(args.layer, value.shape[0] - 1))]


def _parameter_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    return _parameter_value(args, "cpu")[None]


def _parameter_rows(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    return _parameter_value(args, valid.device)[None, None]


def _learned(call: Call) -> TensorType:
    q = call.x
    if q.has_blocks:
        call.fail("maps the query, and this operand has blocks", "Apply it to q")
    weights = {name: call.args.weight(name) for name in ("Wq", "Wk")}
    given = {name: weight.shape for name, weight in weights.items() if weight is not None}
    for name, (_, heads, features, rank) in given.items():
        if heads != q.rows.hint or features != q.cols.hint:
            call.fail(
                f"last dimension mismatch: {name} is for {heads} heads of {features} features",
                f"Give it as [L, {sized(q.rows)}, {sized(q.cols)}, r]",
            )
        if len(given) == 1 and rank != features:
            other = "Wk" if name == "Wq" else "Wq"
            call.fail(
                f"{name} alone must be square, got {features} x {rank}",
                f"Give it as [L, H, d, d], or {other} too",
            )
    if len({(shape[0], shape[3]) for shape in given.values()}) > 1:
        shapes = " and ".join(f"{name} {list(shape)}" for name, shape in given.items())
        call.fail(f"{shapes} differ in L or r", "Give both as [L, H, d, r] with the same L and r")
    _check_lookup(call, next(iter(given.values()))[0] if given else 0)
    return TensorType(Format.BATCHED, Dim(1), q.cols)


def _learned_query(args: Args, q: torch.Tensor) -> torch.Tensor:
    """`scaling * sum_h Wk[l, h] (Wq[l, h]^T q_h)` over `q [..., heads, features]`; a missing factor is the
    identity, and without a row for this layer it is `sum_h q_h`."""
    import torch

    first, second = args.weight("Wq"), args.weight("Wk")
    row = _row_of_layer(args, first or second)
    if row is None:
        return q.sum(-2, keepdim=True)
    if first is not None:
        q = torch.einsum("...hd,hdr->...hr", q, first.torch(q.device)[row])
    if second is not None:
        q = torch.einsum("...hr,hdr->...d", q, second.torch(q.device)[row]).unsqueeze(-2)
    return args.number("scaling") * q.sum(-2, keepdim=True)


def _row_of_layer(args: Args, weight: Weight | None) -> int | None:
    if weight is None:
        return None
    if args.values["layer_lookup"] is not None:
        return _lookup(args).get(args.layer)
    return args.layer if args.layer < weight.shape[0] else None


def _learned_flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    weights = [args.weight(name) for name in ("Wq", "Wk")]
    return types[0].numel + sum(2 * weight.numel // weight.shape[0] for weight in weights if weight)


def _conv(call: Call) -> TensorType:
    require_blocks(call, call.x)
    _, rows, cols = _given(call.args, "weight").shape
    if rows != call.x.rows.hint or cols != call.x.cols.hint:
        call.fail(
            f"weight has the inner dims {rows} x {cols}",
            f"Give it as [K, {sized(call.x.rows)}, {sized(call.x.cols)}]",
        )
    return same_as_x(call)


def taps(args: Args, device: torch.device | str) -> torch.Tensor:
    """The weight `[K, D0, D1]` as stored in its dtype."""
    import torch

    return _given(args, "weight").torch(device).to(getattr(torch, args.text("dtype"))).float()


def _conv_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    (x,) = inputs
    out, first = x.new_zeros(x.shape), row.span.start
    for at in range(first, row.span.stop):
        for back, tap in enumerate(taps(args, x.device)):
            if at - back >= first:
                out[at] += tap * x[at - back]
    return out


def _conv_rows(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    x = masked(inputs[0], valid, 0.0)
    out = x.new_zeros(x.shape)
    for back, tap in enumerate(taps(args, x.device)[: x.shape[1]]):
        out[:, back:] += tap * x[:, : x.shape[1] - back]
    return out


def _conv_flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 2 * _given(args, "weight").numel


_LOOKUP = LookupParam("layer_lookup", None)

define(
    OpDef(
        name="Parameter",
        doc="A constant, [N, K] or [L, N, K] with a row for each layer of the model (by layer_lookup, else "
        "the layer's number, at most L - 1). Not called: the instance itself is an operand.",
        stages=INDEXER,
        params=(WeightParam("value", ranks=(2, 3), axes="[L, N, K] or [N, K]"), _LOOKUP),
        operands=(),
        infer=_parameter,
        reference=_parameter_row,
        vectorised=_parameter_rows,
        flops=lambda args, types, out: 0,
        constant=True,
        per_layer=True,
        example=Example("[[0.5, 0.25], [0.0, 1.0]]", ()),
        elsewhere="Constants are operands in the indexer; Fill() writes one into a field",
    )
)
define(
    OpDef(
        name="LearnedQuery",
        doc="scaling sum_h Wk[l, h] (Wq[l, h]^T q_h) with weights [L, H, d, r] and l the row of the model's "
        "layer; a missing factor is the identity, and a layer without a row gives sum_h q_h.",
        stages=INDEXER,
        params=(
            WeightParam("Wq", None, ranks=(4,), axes="[L, H, d, r]"),
            WeightParam("Wk", None, ranks=(4,), axes="[L, H, d, r]"),
            _LOOKUP,
            FloatParam("scaling", 1.0),
        ),
        operands=("q",),
        infer=_learned,
        reference=lambda args, inputs, row: _learned_query(args, inputs[0]),
        triton=Emit(
            lanes=lambda w, args, inputs: w.reduced(inputs[0], 1, "sum"),
            holds=lambda args: args.weight("Wq") is None and args.weight("Wk") is None,
        ),
        flops=_learned_flops,
        per_layer=True,
        example=Example("", ("q",)),
        elsewhere="The cache stage has no query",
    )
)
define(
    OpDef(
        name="Conv1d",
        doc="Causal depthwise convolution over the scored blocks of a row: y[p] = sum_k w[k] x[p - k], "
        "missing blocks being 0; weight [K, D0, D1] has x's inner dims and is rounded to dtype.",
        stages=INDEXER,
        params=(
            WeightParam("weight", ranks=(3,), axes="[K, D0, D1]"),
            block_axis,
            DtypeParam("dtype", "bfloat16"),
            AnyParam("device", None),
        ),
        operands=("x",),
        infer=_conv,
        reference=_conv_row,
        vectorised=_conv_rows,
        triton=Emit(
            window=lambda w, args, inputs: w.each("{0} + {1} * {2}", *inputs),
            taps=lambda args: _given(args, "weight").shape[0],
        ),
        flops=_conv_flops,
        across_blocks=lambda args: True,
        example=Example("[[[0.75]], [[0.25]]]", ("s",)),
        elsewhere="The cache stage sees one block; apply it in forward_indexer",
    )
)
