"""Products: GeMM, GeMV, Kron."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, lanewise
from vortex.ops.emit import Emit
from vortex.ops.params import AxesParam
from vortex.ops.registry import define
from vortex.ops.rules import BOTH, INDEXER

if TYPE_CHECKING:
    import torch


def _gemm(call: Call) -> TensorType:
    x, y = call.x, call.y
    if not x.cols.same(y.cols):
        fits = "GeMM contracts the last dims: O[a, b] = sum_k y[a, k] x[b, k]"
        if x.cols.same(y.rows):
            fits += "; Transpose() y first"
        elif x.rows.same(y.cols):
            fits += "; Transpose() x first"
        call.fail(f"last dimension mismatch: {x.cols} and {y.cols}", fits)
    if y.format is Format.PARAMETER and x.has_blocks:
        call.fail(
            "a Parameter multiplies BATCHED operands only", "Apply it to q, before combining with the cache"
        )
    return call.like(y.rows, x.rows)


def _gemm_rows(args: Args, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    """y x^T; an operand without blocks is folded into one product a row, instead of a tiny one a block."""
    x, y = inputs
    if x.dim() == 4 and x.shape[1] == 1 < y.shape[1]:
        return (y.flatten(1, 2) @ x[:, 0].transpose(-1, -2)).reshape(*y.shape[:3], x.shape[2])
    if x.dim() == 4 and y.shape[1] == 1 < x.shape[1]:
        products = y[:, 0] @ x.flatten(1, 2).transpose(-1, -2)
        return products.reshape(y.shape[0], y.shape[2], *x.shape[1:3]).transpose(1, 2)
    return y @ x.transpose(-1, -2)


def _gemm_flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 2 * out.numel * types[0].cols.hint


def _gemv(call: Call) -> TensorType:
    x, y = call.x, call.y
    if not (x.rows.same(1) and y.rows.same(1)):
        call.fail("both operands must be vectors, [., 1, D]", "Reduce over dim 1 first, or use GeMM")
    if not x.cols.same(y.cols):
        call.fail(f"last dimension mismatch: {x.cols} and {y.cols}", "GeMV contracts the last dims")
    if x.has_blocks or not y.has_blocks:
        call.fail("x must be BATCHED, [1, 1, D], and y have blocks, [S, 1, D]", "Use GeMM for other formats")
    return call.like(1, 1)


def _kron(call: Call) -> TensorType:
    axes = {int(axis) for axis in call.args.integers("dim")}
    dims = []
    for axis, a, b in ((1, call.x.rows, call.y.rows), (2, call.x.cols, call.y.cols)):
        if axis in axes:
            dims.append(Dim.of(a * b))
        elif a.same(b) or b.same(1):
            dims.append(a)
        elif a.same(1):
            dims.append(b)
        else:
            call.fail(
                f"the inner dims {a} and {b} are not broadcastable over axis {axis}",
                f"Name axis {axis} in dim, or make its sizes equal or 1",
            )
    return call.like(dims[0], dims[1])


def _kron_values(args: Args, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    axes = {int(axis) for axis in args.integers("dim")}
    product = _spread(x, axes, 1) * _spread(y, axes, 0)
    if 1 in axes:
        product = product.flatten(-4, -3) if 2 in axes else product.flatten(-3, -2)
    return product.flatten(-2, -1) if 2 in axes else product


def _spread(x: torch.Tensor, axes: set[int], after: int) -> torch.Tensor:
    """[..., r, c] with a unit axis after (x) or before (y) each axis of the product."""
    if 2 in axes:
        x = x.unsqueeze(-1 if after else -2)
    if 1 in axes:
        x = x.unsqueeze((-2 if after else -3) - (2 in axes))
    return x


define(
    OpDef(
        name="GeMM",
        doc="y x^T: O[a, b] = sum_k y[a, k] x[b, k]. The second operand supplies the rows of the result.",
        stages=BOTH,
        operands=("x", "y"),
        infer=_gemm,
        reference=lanewise(lambda args, x, y: y @ x.transpose(-1, -2)),
        vectorised=_gemm_rows,
        triton=Emit(lanes=lambda w, args, inputs: w.product(*inputs)),
        flops=_gemm_flops,
        example=Example("", ("q", "c")),
    )
)
define(
    OpDef(
        name="GeMV",
        doc="Dot product of a BATCHED vector with one vector per block.",
        stages=INDEXER,
        operands=("x", "y"),
        infer=_gemv,
        reference=lanewise(lambda args, x, y: (x * y).sum(-1, keepdim=True)),
        triton=Emit(lanes=lambda w, args, inputs: w.product(*inputs)),
        flops=_gemm_flops,
        example=Example("", ("qm", "c")),
        elsewhere="Use vortex.cache.GeMM",
    )
)
define(
    OpDef(
        name="Kron",
        doc="Kronecker product over the named axes, broadcast over the other: "
        "out[i y1 + j, k y2 + l] = x[i, k] y[j, l].",
        stages=INDEXER,
        params=(AxesParam("dim", (1, 2)),),
        operands=("x", "y"),
        infer=_kron,
        reference=lanewise(_kron_values),
        triton=Emit(lanes=lambda w, args, xy: w.kron(xy[0], xy[1], {int(i) for i in args.integers("dim")})),
        example=Example("dim=(1,)", ("q", "c")),
        elsewhere="Take the product in the indexer, or Multiply operands that broadcast",
    )
)
