"""When the cache stage runs: once for every block that a sparse row has finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vortex.runtime.fields import allocate
from vortex.runtime.table import BlockTable

if TYPE_CHECKING:
    from vortex.targets.base import LayerCache, Program

CHUNK_TOKENS = 4096
"""Tokens summarised at a time: few enough to stay in the processor's cache between the ops of a program."""


class Summaries:
    """The fields of the sparse layers, and how many blocks of each request they cover.

    A request that is never sparse never pays: its blocks are summarised in the first step that scores it.
    """

    def __init__(
        self, program: Program | None, layers: Sequence[LayerCache], requests: int, heads: int
    ) -> None:
        self.program = program
        self.layers = layers
        self.done = np.zeros(requests, dtype=np.int64)
        self.rows = requests * heads
        self.grow()

    def due(self, table: BlockTable, sparse: np.ndarray, finished: np.ndarray) -> list[slice | torch.Tensor]:
        """The blocks of the requests `sparse` that are finished and not summarised; they count as done from
        now on.

        `table` has the rows of these requests. Long consecutive runs come as slices, everything else as
        ids.
        """
        if self.program is None:
            return []
        first, last = self.done[sparse], finished[sparse]
        self.done[sparse] = last
        heads = table.rows // len(sparse)
        work: list[slice | torch.Tensor] = []
        loose: list[np.ndarray] = []
        chunk = max(1, CHUNK_TOKENS // table.block_size)
        for place in np.flatnonzero(last > first):
            for row in range(place * heads, (place + 1) * heads):
                start = int(table.starts[row])
                if start < 0 or last[place] - first[place] == 1:
                    loose.append(table.host[row, first[place] : last[place]])
                    continue
                end = start + int(last[place])
                begins = range(start + int(first[place]), end, chunk)
                work.extend(slice(begin, min(end, begin + chunk)) for begin in begins)
        if loose:
            ids = torch.from_numpy(np.concatenate(loose)).to(table.ids.device)
            work.extend(torch.split(ids, chunk))
        return work

    def update(self, layer: LayerCache, blocks: Sequence[slice | torch.Tensor]) -> None:
        """Run the cache stage of one layer for these blocks."""
        if self.program is not None:
            for part in blocks:
                self.program.summarize(layer, part)

    def keep(self, alive: np.ndarray) -> None:
        self.done = self.done[alive]

    def grow(self) -> None:
        """Follow pools that have grown."""
        if self.program is None:
            return
        for layer in self.layers:
            blocks = layer.pool.k.shape[0] // self.program.geometry.block_size
            shapes = self.program.fields, self.program.request_fields
            allocate(layer, *shapes, blocks, self.rows, torch.float32)
