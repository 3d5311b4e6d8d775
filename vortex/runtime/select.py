"""From scores to the blocks that attention reads. Exact top-k: ties to the lower position, NaN after every
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from vortex.config import Dtype
from vortex.runtime.dtypes import rounded
from vortex.runtime.plan import BlockList, SparseRows

if TYPE_CHECKING:
    from vortex.targets.base import Target

_NAN, _INVALID = -(2**31) + 1, -(2**31)


def sort_keys(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Distinct int64 keys `[rows, blocks]` whose descending order is the order of selection.

    The high half is the float32 score as an ordered integer, the low half counts positions downwards.
    """
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0, which must tie with it
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ordered = ordered.masked_fill_(scores.isnan(), _NAN).masked_fill_(~valid, _INVALID)
    positions = torch.arange(scores.shape[1], device=scores.device)
    return (ordered.long() << 32) | (0xFFFFFFFF - positions)


def top_blocks(scores: torch.Tensor, valid: torch.Tensor, most: int) -> torch.Tensor:
    """Positions `[rows, most]` of the best blocks, best first."""
    return sort_keys(scores, valid).topk(most, dim=1).indices


def choose_blocks(
    target: Target, scores: torch.Tensor, rows: SparseRows, quotas: Sequence[int | None], dtype: Dtype
) -> BlockList:
    """The blocks to read, from the scores `[selections, rows, blocks]`, which are compared as `dtype`.
    `quotas`: blocks of each selection, None where the plan says how many."""
    picks = []
    for score, k in zip(scores, quotas, strict=True):
        quota = rows.quota(k)
        picks.append((target.select(rounded(score, dtype), rows, quota), quota))
    return rows.place(picks[0][0]) if len(picks) == 1 else rows.union(picks)
