"""Reductions: over an inner dim (lane-wise) or over the scored blocks of a row (dim 0, indexer only)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, Row
from vortex.ops.emit import Emit, How, Statistic, Tile, Writer, number
from vortex.ops.params import IntParam
from vortex.ops.registry import define
from vortex.ops.rules import BOTH, CACHE, INDEXER, LAST, any_axis, inner_axis, masked, require_blocks, sized

if TYPE_CHECKING:
    import torch

Reduce = Callable[["torch.Tensor", int], "torch.Tensor"]
"""Reduces one axis of a tensor and keeps it as size 1."""


def _infer(call: Call) -> TensorType:
    dim = call.args.integer("dim")
    if dim == 0:
        require_blocks(call, call.x)
        return TensorType(Format.BATCHED, call.x.rows, call.x.cols)
    return call.like(1, call.x.cols) if dim == 1 else call.like(call.x.rows, 1)


def _flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return types[0].numel


_HOW: dict[str, How] = {"Max": "max", "Min": "min"}


def _emission(name: str) -> Emit:
    """`Max`, `Min`, `Mean`, `Sum` and `L2Norm`: reduce the numbers, or their squares, and finish."""
    how = _HOW.get(name, "sum")

    def numbers(w: Writer, x: Tile) -> Tile:
        return w.each("{0} * {0}", x) if name == "L2Norm" else x

    def finish(w: Writer, total: Tile, count: str) -> Tile:
        if name == "Mean":
            return w.each(f"tl.div_rn({{0}}, {count})", total)
        return w.each("tl.sqrt_rn({0})", total) if name == "L2Norm" else total

    def lanes(w: Writer, args: Args, inputs: tuple[Tile, ...]) -> Tile:
        (x,), dim = inputs, args.integer("dim")
        if "k" in args.values:
            k = args.dim("k").hint
            return finish(w, w.grouped(numbers(w, x), dim, k, how), number(k))
        size = x.rows if dim == 1 else x.cols
        return finish(w, w.reduced(numbers(w, x), dim, how), number(size))

    def finished(w: Writer, args: Args, totals: tuple[Tile, ...], count: str) -> Tile:
        found = finish(w, totals[0], f"tl.maximum({count}, 1).to(tl.float32)")
        return w.each(f"tl.where({count} > 0, {{0}}, 0.0)", found)

    return Emit(
        lanes=lanes,
        statistics=(Statistic(how, lambda w, args, x, earlier: numbers(w, x)),),
        finished=finished,
        exact=lambda args: name in _HOW,
    )


def _define(name: str, doc: str, reduce: Reduce, neutral: float) -> None:
    def reference(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
        (x,) = inputs
        if args.integer("dim"):
            return reduce(x, LAST[args.integer("dim")])
        scored = x[row.span]
        return reduce(scored, 0) if len(scored) else x.new_zeros(1, *x.shape[1:])

    def vectorised(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
        (x,) = inputs
        if args.integer("dim"):
            return reduce(x, LAST[args.integer("dim")])
        count = valid.sum(1)[:, None, None, None]
        reduced = reduce(masked(x, valid, neutral), 1)
        if name == "Mean":  # the padding has been divided by, too
            reduced = reduced * x.shape[1] / count.clamp(min=1)
        return reduced.masked_fill(count == 0, 0.0)

    define(
        OpDef(
            name=name,
            doc=doc,
            stages=INDEXER if name == "Sum" else BOTH,
            params=(any_axis,),
            operands=("x",),
            infer=_infer,
            reference=reference,
            vectorised=vectorised,
            triton=_emission(name),
            flops=_flops,
            across_blocks=lambda args: args.integer("dim") == 0,
            example=Example("dim=1", ("q",)),
            elsewhere="Use Mean(dim) (then Add_Mul(beta=size) for the scale), or vortex.indexer.Sum",
        )
    )


def _interleaved(name: str, doc: str, reduce: Reduce) -> None:
    def groups(call: Call, size: Dim) -> Dim:
        k = call.args.dim("k")
        if size.hint % k.hint:
            call.fail(f"the size {size} is not divisible by k={k}", f"Choose a k that divides {sized(size)}")
        return Dim.of(size // k)

    def infer(call: Call) -> TensorType:
        if call.args.integer("dim") == 1:
            return call.like(groups(call, call.x.rows), call.x.cols)
        return call.like(call.x.rows, groups(call, call.x.cols))

    def reference(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
        axis = LAST[args.integer("dim")]
        x, k = inputs[0], args.dim("k").hint
        at = x.dim() + axis
        grouped = x.reshape(*x.shape[:at], -1, k, *x.shape[at + 1 :])
        return reduce(grouped, at + 1).squeeze(at + 1)

    define(
        OpDef(
            name=name,
            doc=doc,
            stages=CACHE,
            params=(inner_axis, IntParam("k", 2, minimum=1)),
            operands=("x",),
            infer=infer,
            reference=reference,
            triton=_emission(name.removesuffix("Interleave")),
            flops=_flops,
            example=Example("dim=1, k=4", ("k",)),
            elsewhere="In the indexer, Reshape first and then reduce over dim 1 or 2",
        )
    )


_FAMILY: tuple[tuple[str, str, Reduce, float], ...] = (
    ("Max", "maximum", lambda x, axis: x.amax(axis, keepdim=True), -float("inf")),
    ("Min", "minimum", lambda x, axis: x.amin(axis, keepdim=True), float("inf")),
    ("Mean", "mean (divides by the true size)", lambda x, axis: x.mean(axis, keepdim=True), 0.0),
    ("Sum", "sum", lambda x, axis: x.sum(axis, keepdim=True), 0.0),
    ("L2Norm", "Euclidean norm, sqrt(sum x^2),", lambda x, axis: (x * x).sum(axis, keepdim=True).sqrt(), 0.0),
)
for _name, _word, _reduce, _neutral in _FAMILY:
    _define(
        _name,
        f"The {_word} over dim 1 or 2; in the indexer also over dim 0, the scored blocks (0 if none).",
        _reduce,
        _neutral,
    )
    if _name != "Sum":
        _interleaved(
            f"{_name}Interleave",
            f"The {_word} of every k consecutive elements along dim; k divides the size.",
            _reduce,
        )
