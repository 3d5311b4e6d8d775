"""The paged K/V cache of one layer, and the pages that a row owns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

PAGE = 128
"""Tokens of a page, the unit of allocation; every block size divides it, so that a candidate's block size
never moves data."""


class KVPool:
    """K and V of one layer: `[pages * PAGE, head_dim]` each, tokens of one kv head after another."""

    def __init__(self, k: torch.Tensor, v: torch.Tensor) -> None:
        self.k = k
        self.v = v

    @classmethod
    def allocate(cls, pages: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> KVPool:
        shape = (pages * PAGE, head_dim)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))

    @property
    def pages(self) -> int:
        return self.k.shape[0] // PAGE

    @property
    def head_dim(self) -> int:
        return self.k.shape[1]

    def blocks(self, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V as `[blocks, block_size, head_dim]`, without a copy."""
        shape = (-1, block_size, self.head_dim)
        return self.k.view(shape), self.v.view(shape)

    def write(self, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store `[n, head_dim]` keys and values at the token slots `[n]`."""
        self.k[slots] = k
        self.v[slots] = v

    def grow(self, pages: int) -> None:
        """Enlarge to at least `pages`; slots keep their numbers, new ones are zero."""
        if pages <= self.pages:
            return
        extra = max(pages, 2 * self.pages) - self.pages
        room = self.k.new_zeros((extra * PAGE, self.head_dim))
        self.k = torch.cat((self.k, room))
        self.v = torch.cat((self.v, room))


@dataclass(frozen=True)
class PageTable:
    """Pages of each row in order: `pages [rows, most pages of a row]`, of which `counts [rows]` are owned.

    Unowned entries are 0: they may be read (and are masked), never written.
    """

    pages: np.ndarray
    counts: np.ndarray

    @classmethod
    def contiguous(cls, starts: np.ndarray, counts: np.ndarray) -> PageTable:
        """Rows that own the pages `starts[r] .. starts[r] + counts[r] - 1`."""
        steps = np.arange(int(counts.max(initial=0)))
        pages = np.where(steps < counts[:, None], starts[:, None] + steps, 0)
        return cls(pages.astype(np.int64), counts.astype(np.int64))

    @property
    def rows(self) -> int:
        return len(self.counts)

    def select(self, rows: np.ndarray) -> PageTable:
        return PageTable(self.pages[rows], self.counts[rows])

    def append(self, rows: np.ndarray, pages: np.ndarray) -> PageTable:
        """Give `rows[i]` the page `pages[i]` as its next one."""
        counts = self.counts.copy()
        wide = np.pad(self.pages, ((0, 0), (0, 1)))
        wide[rows, counts[rows]] = pages
        counts[rows] += 1
        return PageTable(wide[:, : int(counts.max())], counts)

    def slots(self, positions: np.ndarray) -> np.ndarray:
        """Token slots of one position of every row, `[rows]`."""
        pages = self.pages[np.arange(self.rows), positions // PAGE]
        return np.asarray(pages * PAGE + positions % PAGE)

    def blocks(self, block_size: int) -> np.ndarray:
        """Block ids `[rows, blocks]` at a block size that divides `PAGE`."""
        per_page = PAGE // block_size
        ids = self.pages[:, :, None] * per_page + np.arange(per_page)
        return ids.reshape(self.rows, -1)

    def runs(self) -> np.ndarray:
        """First page of each row where its pages are consecutive, -1 where they are not, `[rows]`."""
        steps = np.arange(self.pages.shape[1])
        expected = self.pages[:, :1] + steps
        consecutive = ((self.pages == expected) | (steps >= self.counts[:, None])).all(1)
        return np.asarray(np.where(consecutive, self.pages[:, 0], -1))
