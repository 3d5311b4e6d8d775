"""Ops over the scored blocks of a row that keep the axis of blocks: Softmax and Normalize.

Positions outside [bos, n - eos) are never selected from; both give 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.graph.model import TensorType
from vortex.ops.base import Args, Call, Example, OpDef, Row
from vortex.ops.emit import Emit, Statistic, Tile, Writer, number
from vortex.ops.params import FloatParam
from vortex.ops.registry import define
from vortex.ops.rules import INDEXER, block_axis, masked, require_blocks, same_as_x

if TYPE_CHECKING:
    import torch

SMALLEST_NORM = 1e-12
_ELSEWHERE = "The cache stage sees one block; apply it in forward_indexer"


def _infer(call: Call) -> TensorType:
    require_blocks(call, call.x)
    return same_as_x(call)


def _flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 6 * out.numel


def _softmax_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    (x,) = inputs
    out = x.new_zeros(x.shape)
    out[row.span] = (args.number("scale") * x[row.span]).softmax(0)
    return out


def _softmax_rows(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    scaled = masked(args.number("scale") * inputs[0], valid, -float("inf"))
    empty = ~valid.any(1)[:, None, None, None]
    return scaled.masked_fill(empty, 0.0).softmax(1).masked_fill(empty, 0.0)


def _normalize_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    (x,) = inputs
    out = x.new_zeros(x.shape)
    scored = x[row.span]
    out[row.span] = scored / (scored * scored).sum(0, keepdim=True).sqrt().clamp(min=SMALLEST_NORM)
    return out


def _normalize_rows(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    x = masked(inputs[0], valid, 0.0)
    return x / (x * x).sum(1, keepdim=True).sqrt().clamp(min=SMALLEST_NORM)


_FINITE = "tl.where({1} == -float('inf'), 0.0, {1})"
"""A maximum to subtract: of nothing but -inf, exp(x - maximum) is 0 and not NaN."""


def _scaled(w: Writer, args: Args, x: Tile, earlier: tuple[Tile, ...] = ()) -> Tile:
    scale = args.number("scale")
    return x if scale == 1 else w.each(f"{{0}} * {number(scale)}", x)


def _softmax_emission() -> Emit:
    """The maximum, and the sum of exp(x - maximum), of each tile and then of all."""

    def exponentials(w: Writer, args: Args, x: Tile, earlier: tuple[Tile, ...]) -> Tile:
        return w.each(f"tl.exp({{0}} - {_FINITE})", _scaled(w, args, x), earlier[0])

    def merged(w: Writer, args: Args, part: Tile, parts: tuple[Tile, ...], totals: tuple[Tile, ...]) -> Tile:
        return w.each("{0} * tl.exp({1} - {2})", part, parts[0], totals[0])

    def applied(w: Writer, args: Args, x: Tile, totals: tuple[Tile, ...]) -> Tile:
        return w.each("tl.div_rn(tl.exp({0} - {1}), {2})", _scaled(w, args, x), *totals)

    return Emit(
        statistics=(Statistic("max", _scaled), Statistic("sum", exponentials, merged)), applied=applied
    )


def _normalize_emission() -> Emit:
    norm = f"maximum(tl.sqrt_rn({{1}}), {number(SMALLEST_NORM)})"
    return Emit(
        statistics=(Statistic("sum", lambda w, args, x, earlier: w.each("{0} * {0}", x)),),
        applied=lambda w, args, x, totals: w.each(f"tl.div_rn({{0}}, {norm})", x, *totals),
    )


define(
    OpDef(
        name="Softmax",
        doc="Softmax of scale x over the scored blocks of a row, for each inner element.",
        stages=INDEXER,
        params=(block_axis, FloatParam("scale", 1.0)),
        operands=("x",),
        infer=_infer,
        reference=_softmax_row,
        vectorised=_softmax_rows,
        triton=_softmax_emission(),
        flops=_flops,
        across_blocks=lambda args: True,
        example=Example("dim=0, scale=0.09", ("s",)),
        elsewhere=_ELSEWHERE,
    )
)
define(
    OpDef(
        name="Normalize",
        doc="x / max(L2 norm over the scored blocks of a row, 1e-12), for each inner element.",
        stages=INDEXER,
        params=(block_axis,),
        operands=("x",),
        infer=_infer,
        reference=_normalize_row,
        vectorised=_normalize_rows,
        triton=_normalize_emission(),
        flops=_flops,
        across_blocks=lambda args: True,
        example=Example("dim=0", ("s",)),
        elsewhere=_ELSEWHERE,
    )
)
