"""Ops that claim the output: they choose the blocks that attention reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.graph.model import Format, TensorType
from vortex.ops.base import Args, Call, Example, OpDef, Row, unchanged
from vortex.ops.params import FloatParam, IntParam
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
    return top(inputs[0], row)


def top(score: torch.Tensor, row: Row) -> torch.Tensor:
    """Positions of the `row.k` best scored blocks of `score [S, 1, 1]`, ascending; ties to the lower
    position, NaN ranks last."""
    import torch

    scores = score.flatten().tolist()
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


def _infer_selection(call: Call) -> TensorType:
    _infer(call)
    return TensorType(Format.SELECTION, Dim(1), call.args.dim("k"))


def _top_k_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    return top(inputs[0], replace(row, k=args.dim("k").hint))


def _union_row(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
    """Ascending positions, each once."""
    import torch

    return torch.tensor(sorted({int(at) for chosen in inputs for at in chosen}), dtype=torch.int64)


define(
    OpDef(
        name="TopK",
        doc="The k best blocks by score among [bos, n - eos), as the pair (block_table, seqlens) that Union "
        "takes.",
        stages=INDEXER,
        params=(IntParam("k", minimum=1),),
        operands=("score",),
        infer=_infer_selection,
        reference=_top_k_row,
        flops=_flops,
        selects=True,
        across_blocks=lambda args: True,
        example=Example("8", ("s",)),
        elsewhere="Blocks are selected at the end of forward_indexer",
    )
)
define(
    OpDef(
        name="Union",
        doc="The blocks of two selections, each once, besides the reserved ones; claims o.",
        stages=INDEXER,
        operands=("first", "second"),
        infer=lambda call: TensorType(Format.SELECTION, Dim(1), Dim.of(call.x.cols + call.y.cols)),
        reference=_union_row,
        flops=lambda args, types, out: 2 * out.numel,
        swap=unchanged,
        claims_output=True,
        takes_selections=True,
        across_blocks=lambda args: True,
        example=Example("", ("t0", "t1")),
        elsewhere="Blocks are selected at the end of forward_indexer",
    )
)
