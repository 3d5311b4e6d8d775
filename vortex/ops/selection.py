"""Ops that claim the output: they choose the blocks that attention reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, Row
from vortex.ops.params import FloatParam
from vortex.ops.registry import define
from vortex.ops.rules import INDEXER

if TYPE_CHECKING:
    import torch


def _infer(call: Call) -> TensorType:
    score = call.x
    if not (score.rows.same(1) and score.cols.same(1)):
        axes = [
            f"dim {axis} ({size})" for axis, size in ((1, score.rows), (2, score.cols)) if not size.same(1)
        ]
        call.fail(
            "needs one score per block, [S, 1, 1]", f"Reduce {' and '.join(axes)} with Max, Mean or Sum first"
        )
    if score.format is Format.PAGED:
        call.fail("cannot read a cache field directly", "Load() the field first")
    if score.format is not Format.RAGGED:
        call.fail(
            "needs a score for each block, and this one is the same for all",
            "Combine q with a cache field first",
        )
    return score


def _top_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    """Positions of the k best scored blocks, ascending; ties to the lower position, NaN ranks last."""
    import torch

    scores = inputs[0].flatten().tolist()
    candidates = range(*row.span.indices(len(scores)))
    ranked = sorted(
        candidates,
        key=lambda at: (scores[at] != scores[at], -scores[at] if scores[at] == scores[at] else 0.0, at),
    )
    return torch.tensor(sorted(ranked[: row.k]), dtype=torch.int64)


def _flops(args: Args, types: tuple[TensorType, ...], out: TensorType) -> int:
    return 4


_top = define(
    OpDef(
        name="topK",
        doc="Selects the k best blocks by score among [bos, n - eos), k given by the plan; claims o.",
        stages=INDEXER,
        operands=("score",),
        infer=_infer,
        reference=_top_row,
        flops=_flops,
        claims_output=True,
        across_blocks=lambda args: True,
        example=Example("", ("s",)),
        elsewhere="Blocks are selected at the end of forward_indexer",
    )
)


class _Share(FloatParam):
    """A number in [0, 1]."""

    def coerce(self, value: object, stage: object) -> float:
        number = super().coerce(value, stage)  # type: ignore[arg-type]
        assert isinstance(number, float)
        if not 0.0 <= number <= 1.0:
            raise self.refuse(value, "in [0, 1]")
        return number


define(
    _top.named(
        "approxTopK",
        doc="As topK, with a recall of at least 1 - tolerate_ratio; 0 is exact up to ties.",
        params=(_Share("tolerate_ratio", 0.0),),
        example=Example("tolerate_ratio=0.03", ("s",)),
    )
)
