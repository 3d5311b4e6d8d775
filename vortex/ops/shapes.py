"""Ops that move, mask or make elements: Transpose, Reshape, MaskSlice, Fill, Load, Save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, lanewise
from vortex.ops.emit import Emit, Tile, Writer, always, copied, number
from vortex.ops.params import FloatParam, IntParam
from vortex.ops.registry import define
from vortex.ops.rules import BOTH, CACHE, INDEXER, inner_axis, same_as_x, sized

if TYPE_CHECKING:
    import torch


def _free(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 0


class _Lead(IntParam):
    """The leading axis of a reshape, which stays what it is."""

    def __str__(self) -> str:
        return "-1"


def _size(name: str) -> IntParam:
    return IntParam(name, minimum=1, hint="Sizes are x.shape[1] and x.shape[2]; x.shape[0] is 0 in a trace")


def _reshape(call: Call) -> TensorType:
    lead, rows, cols = call.args.integer("lead"), call.args.dim("rows"), call.args.dim("cols")
    if lead != -1:
        call.fail("the leading axis cannot be reshaped", f"Write Reshape(-1, {rows}, {cols})")
    if rows.hint * cols.hint != call.x.numel:
        call.fail(
            f"cannot reshape {call.x.rows} x {call.x.cols} = {call.x.numel} elements to {rows} x {cols}",
            "The number of inner elements must stay the same",
        )
    return call.like(rows, cols)


def _mask_slice(call: Call) -> TensorType:
    start, end = call.args.dim("start"), call.args.dim("end")
    axis = call.args.integer("dim")
    size = call.x.rows if axis == 1 else call.x.cols
    if not 0 <= start.hint <= end.hint <= size.hint:
        call.fail(
            f"the slice [{start}, {end}) is out of bounds for dim {axis} of size {size}",
            f"Need 0 <= start <= end <= {sized(size)}",
        )
    return same_as_x(call)


def _mask_values(args: Args, x: torch.Tensor) -> torch.Tensor:
    import torch

    out = torch.full_like(x, args.number("beta"))
    start, end = args.dim("start").hint, args.dim("end").hint
    inside = out[..., start:end, :] if args.integer("dim") == 1 else out[..., start:end]
    inside.fill_(args.number("alpha"))
    return out


def _emit_mask(w: Writer, args: Args, inputs: tuple[Tile, ...]) -> Tile:
    start, end = args.dim("start").hint, args.dim("end").hint
    at = "{row}" if args.integer("dim") == 1 else "{col}"
    inside, outside = number(args.number("alpha")), number(args.number("beta"))
    return w.constant(
        f"tl.where(({at} >= {start}) & ({at} < {end}), {inside}, {outside})", inputs[0].rows, inputs[0].cols
    )


def _fill(call: Call) -> TensorType:
    if call.output is None:
        call.fail("needs the field that it fills", 'Write fill(cache["name"], loc=loc, ctx=ctx)')
    return call.output


def _fill_values(args: Args, device: torch.device | str) -> torch.Tensor:
    import torch

    shape = (1, args.type.rows.hint, args.type.cols.hint)
    return torch.full(shape, args.number("alpha"), device=device)


def _load(call: Call) -> TensorType:
    if call.x.format not in (Format.PAGED, Format.SLOTTED):
        call.fail("copies a cache field, and this is none", "Use the operand as it is, without Load")
    return call.like(call.x.rows, call.x.cols)


_SAVED = {
    Format.RAGGED: (
        "block",
        "Combine x with a cache field first, or declare a field of create_request_cache for it",
    ),
    Format.BATCHED: (
        "row",
        "Reduce x over the blocks (dim=0) first, or declare a field of create_cache for it",
    ),
}


def _save(call: Call) -> TensorType:
    target = call.output
    if target is None:
        call.fail("needs the field that it writes", 'Write save(x, cache["name"], ctx=ctx)')
    wanted = Format.RAGGED if target.format is Format.PAGED else Format.BATCHED
    if call.x.format is not wanted:
        per, fits = _SAVED[wanted]
        if call.x.format in (Format.PAGED, Format.SLOTTED):
            fits = "Load() the field x first"
        call.fail(f"cannot write x, {call.x.format.name}, to a field with one entry per {per}", fits)
    return TensorType(target.format, call.x.rows, call.x.cols)


define(
    OpDef(
        name="Transpose",
        doc="Swaps the inner dims.",
        stages=INDEXER,
        operands=("x",),
        infer=lambda call: call.like(call.x.cols, call.x.rows),
        reference=lanewise(lambda args, x: x.transpose(-1, -2)),
        triton=Emit(lanes=lambda w, args, inputs: w.transposed(inputs[0]), exact=always),
        flops=_free,
        example=Example("", ("q",)),
        elsewhere="Transpose in the indexer; for a product, GeMM(x, y) is y x^T",
    )
)
define(
    OpDef(
        name="Reshape",
        doc="Row-major reshape of the inner dims to rows x cols; the leading axis is always -1.",
        stages=BOTH,
        params=(_Lead("lead"), _size("rows"), _size("cols")),
        operands=("x",),
        infer=_reshape,
        reference=lanewise(
            lambda args, x: x.reshape(*x.shape[:-2], args.dim("rows").hint, args.dim("cols").hint)
        ),
        triton=Emit(
            lanes=lambda w, args, x: w.reshaped(x[0], args.dim("rows").hint, args.dim("cols").hint),
            exact=always,
        ),
        flops=_free,
        example=Example("-1, 2, 64", ("c",)),
    )
)
define(
    OpDef(
        name="MaskSlice",
        doc="x's shape, alpha on [start, end) of dim 1 or 2 and beta elsewhere. x's values are not used.",
        stages=BOTH,
        params=(
            IntParam("start", minimum=0),
            IntParam("end", minimum=0),
            inner_axis.needed(),
            FloatParam("alpha", 1.0),
            FloatParam("beta", 0.0),
        ),
        operands=("x",),
        infer=_mask_slice,
        reference=lanewise(_mask_values),
        triton=Emit(
            lanes=_emit_mask, exact=lambda args: {args.number("alpha"), args.number("beta")} <= {0.0, 1.0}
        ),
        example=Example("0, 8, 2, alpha=0.0, beta=1.0", ("q",)),
    )
)
define(
    OpDef(
        name="Fill",
        doc="Writes alpha to every element of a field.",
        stages=CACHE,
        params=(FloatParam("alpha", 0.0),),
        operands=(),
        infer=_fill,
        reference=lambda args, inputs, row: _fill_values(args, "cpu"),
        vectorised=lambda args, inputs, valid: _fill_values(args, valid.device),
        triton=Emit(
            lanes=lambda w, args, inputs: w.constant(
                number(args.number("alpha")), args.type.rows.hint, args.type.cols.hint
            )
        ),
        writes_field=True,
        example=Example("alpha=1.0", ()),
        elsewhere="Fill fields in forward_cache; a constant in the indexer is MaskSlice(0, 0, 1, beta=value)",
    )
)
define(
    OpDef(
        name="Load",
        doc="A field as an intermediate; ops over blocks need it, all others read fields directly.",
        stages=INDEXER,
        operands=("field",),
        infer=_load,
        reference=lanewise(lambda args, x: x),
        triton=copied(),
        flops=_free,
        example=Example("", ("f",)),
        elsewhere="The cache stage reads fields directly",
    )
)
define(
    OpDef(
        name="Save",
        doc="Writes x into a field, for the scored blocks (a request field: for the row), and returns the "
        "field. Kept even if nothing reads it. Needs the engine's prefix cache off.",
        stages=INDEXER,
        operands=("x",),
        infer=_save,
        reference=lanewise(lambda args, x: x),
        triton=copied(),
        flops=_free,
        writes_field=True,
        side_effect=True,
        example=Example("", ("c",)),
        elsewhere="Give the op that makes the value the field as its output",
    )
)
