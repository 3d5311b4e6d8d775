"""Ways to look into a decode, or to replace its scores: used by tests and by the probe model's card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from vortex.runtime.plan import SparseRows
    from vortex.runtime.table import BlockTable
    from vortex.targets.base import LayerCache


@dataclass(frozen=True)
class ScoreInput:
    """What the scores of one layer in one step are made from.

    `q [rows, group, head_dim]`; `requests [rows]` numbers the requests as the caller of `decode` does,
    whatever else is in the batch; `step` counts decode steps from 0.
    """

    step: int
    layer: LayerCache
    q: torch.Tensor
    table: BlockTable
    rows: SparseRows
    requests: np.ndarray


ScoreOverride = Callable[[ScoreInput], torch.Tensor]
"""Replaces a graph's scores by its own, `[rows, blocks]`."""
ScoreNoise = Callable[[ScoreInput, torch.Tensor], torch.Tensor]
"""Changes scores before they are rounded."""
SelectionProbe = Callable[[ScoreInput, torch.Tensor], None]
"""Sees the block list `[rows, width]` (positions within a row) before attention."""


@dataclass(frozen=True)
class Hooks:
    """The hooks of a decode; the default changes nothing."""

    scores: ScoreOverride | None = None
    noise: ScoreNoise | None = None
    selected: SelectionProbe | None = None


def oracle_scores(given: ScoreInput) -> torch.Tensor:
    """The largest true logit of a block over its tokens and the heads of the group. Reads the whole cache."""
    k, _ = given.layer.pool.blocks(given.table.block_size)
    out = given.q.new_empty((len(given.rows), given.rows.blocks), dtype=torch.float32)
    for row in range(len(given.rows)):
        blocks = given.table.read(k, row, row + 1, given.rows.blocks)[0]
        out[row] = (blocks @ given.q[row].T).amax((1, 2))
    return out


def random_scores(seed: int) -> ScoreOverride:
    """Independent uniform scores, the same for a request whatever else is in the batch."""

    def scores(given: ScoreInput) -> torch.Tensor:
        out = torch.empty((len(given.rows), given.rows.blocks))
        for row, request in enumerate(given.requests):
            head = row % max(1, int((given.requests == request).sum()))
            state = np.random.default_rng((seed, given.step, given.layer.index, int(request), head))
            out[row] = torch.from_numpy(state.random(given.rows.blocks, dtype=np.float32))
        return out.to(given.q.device)

    return scores
