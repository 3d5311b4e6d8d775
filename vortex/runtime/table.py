"""Block tables: where the blocks of each row lie, and reading them as `[rows, blocks, ...]`."""

from __future__ import annotations

import numpy as np
import torch

from vortex.runtime.pool import PAGE, PageTable, take


class BlockIds:
    """Block ids of rows at one block size, `ids [rows, blocks]` on the device of the pool."""

    def __init__(self, ids: torch.Tensor, block_size: int) -> None:
        self.ids, self.block_size = ids, block_size

    def read(self, data: torch.Tensor, first: int, last: int, blocks: int) -> torch.Tensor:
        """Blocks `0..blocks-1` of rows `first..last-1` of `data`, see `pool.take`: `[last - first, blocks, r,
        c]`.

        Entries past the end of a row are some other finite block: mask them.
        """
        ids = self.ids[first:last, :blocks]
        found = take(data, ids.reshape(-1))
        return found.view(*ids.shape, *found.shape[1:])


class BlockTable(BlockIds):
    """Block ids of rows that own pages. Rows whose blocks are consecutive are read through views; any other
    row is gathered.
    """

    def __init__(self, pages: PageTable, block_size: int, device: torch.device) -> None:
        self.host = pages.blocks(block_size)
        super().__init__(torch.from_numpy(self.host).to(device), block_size)
        self.pages = pages
        runs = pages.runs()
        self.starts = np.where(runs < 0, -1, runs * (PAGE // block_size))

    @property
    def rows(self) -> int:
        return len(self.host)

    def select(self, rows: np.ndarray) -> BlockTable:
        return BlockTable(self.pages.select(rows), self.block_size, self.ids.device)

    def read(self, data: torch.Tensor, first: int, last: int, blocks: int) -> torch.Tensor:
        """A view where the rows are evenly spaced in the pool."""
        step = self._stride(first, last)
        start = int(self.starts[first])
        if step is not None and start + (last - first - 1) * step + blocks <= data.shape[0]:
            inner = data.stride()
            shape = (last - first, blocks, *data.shape[1:])
            offset = data.storage_offset() + start * inner[0]
            return data.as_strided(shape, (step * inner[0], *inner), offset)
        return super().read(data, first, last, blocks)

    def _stride(self, first: int, last: int) -> int | None:
        """Blocks between the starts of neighbouring rows; None where rows are not evenly spaced."""
        starts = self.starts[first:last]
        if (starts < 0).any():
            return None
        steps = np.diff(starts)
        if len(steps) == 0:
            return 0
        return int(steps[0]) if (steps == steps[0]).all() and steps[0] > 0 else None
