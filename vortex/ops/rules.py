"""Type rules and block-axis helpers that several families of ops share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.graph.model import Format, Stage, TensorType
from vortex.ops.base import Call
from vortex.ops.params import AxisParam

if TYPE_CHECKING:
    import torch

BOTH = (Stage.INDEXER, Stage.CACHE)
INDEXER = (Stage.INDEXER,)
CACHE = (Stage.CACHE,)

inner_axis = AxisParam("dim", 1)
any_axis = AxisParam("dim", 1, choices={Stage.INDEXER: (0, 1, 2), Stage.CACHE: (1, 2)})
block_axis = AxisParam("dim", 0, choices={Stage.INDEXER: (0,)})

LAST = {1: -2, 2: -1}
"""Inner axis of the language -> axis of a tensor with any leading axes."""


def sized(size: Dim) -> str:
    """A size with its value."""
    return f"{size}={size.hint}" if size.symbolic else str(size)


def same_as_x(call: Call) -> TensorType:
    return call.like(call.x.rows, call.x.cols)


def broadcast(call: Call) -> TensorType:
    """Inner dims of x and y are equal or 1."""
    dims = [_broadcast_dim(call, a, b) for a, b in ((call.x.rows, call.y.rows), (call.x.cols, call.y.cols))]
    return call.like(dims[0], dims[1])


def _broadcast_dim(call: Call, a: Dim, b: Dim) -> Dim:
    if a.same(b) or b.same(1):
        return a
    if a.same(1):
        return b
    call.fail(
        f"the inner dims {a} and {b} are not broadcastable",
        "Inner dims must be equal or 1: reduce one over that dim (Mean, Max, ...), or multiply with GeMM",
    )


def require_blocks(call: Call, operand: TensorType) -> None:
    """An operand with an axis of blocks that belongs to this step: RAGGED."""
    if operand.format is Format.PAGED:
        call.fail(
            "works over the blocks of a row and cannot read a cache field directly", "Load() the field first"
        )
    if operand.format is not Format.RAGGED:
        call.fail(
            "works over the blocks of a row, and its operand has none", "Combine it with a cache field first"
        )


def masked(x: torch.Tensor, valid: torch.Tensor, fill: float) -> torch.Tensor:
    """x `[R, N, r, c]` with `fill` where `valid [R, N]` is false."""
    return x.masked_fill(~valid[:, :, None, None], fill)
