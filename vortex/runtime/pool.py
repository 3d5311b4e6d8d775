"""The paged cache of one layer, the pages that a row owns, and reading blocks by their ids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vortex.graph.geometry import Geometry

PAGE = 128
"""Tokens of a page, the unit of allocation; every block size divides it, so that a candidate's block size
never moves data."""


class KVPool:
    """The cached tokens of one layer.

    `stored` is K and V. For MLA (`kv_lora_rank` > 0) it is the latent `[kv_c | k_pe]` alone: that is the key,
    and its first `kv_lora_rank` columns are the value. Each is `[pages * PAGE, head_dim]`, the tokens of one
    kv head after those of another, or `[slots, heads, head_dim]`, as a serving engine keeps them: there, the
    block of head h in the slots from `block * block_size` on has the id `block * heads + h`.
    """

    def __init__(self, *stored: torch.Tensor, kv_lora_rank: int = 0) -> None:
        self.stored = stored
        self.kv_lora_rank = kv_lora_rank

    @classmethod
    def allocate(
        cls, pages: int, head_dim: int, dtype: torch.dtype, device: torch.device, kv_lora_rank: int = 0
    ) -> KVPool:
        shape, parts = (pages * PAGE, head_dim), 1 if kv_lora_rank else 2
        stored = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(parts)]
        return cls(*stored, kv_lora_rank=kv_lora_rank)

    @property
    def k(self) -> torch.Tensor:
        return self.stored[0]

    @property
    def v(self) -> torch.Tensor:
        return self.pair(self.stored)[1]

    @property
    def pages(self) -> int:
        return self.k.shape[0] // PAGE

    @property
    def head_dim(self) -> int:
        return self.k.shape[-1]

    @property
    def value_dim(self) -> int:
        """Features of a value, and so of the output of attention."""
        return self.kv_lora_rank or self.head_dim

    @property
    def token_bytes(self) -> int:
        """Bytes stored for one token of one kv head."""
        return len(self.stored) * self.head_dim * self.k.itemsize

    def geometry(self, block_size: int, group: int) -> Geometry:
        """The geometry of a graph that runs on this pool, `group` query heads a kv head."""
        if self.kv_lora_rank:
            return Geometry.mla(block_size, self.kv_lora_rank, self.head_dim - self.kv_lora_rank, group)
        return Geometry(block_size, self.head_dim, group)

    def pair(self, read: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V from what was read of each of `stored`, features last; V of a latent is a view of it."""
        if self.kv_lora_rank:
            return read[0], read[0][..., : self.kv_lora_rank]
        return read[0], read[1]

    def blocks(self, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V as `[blocks, block_size, features]`, or `[blocks, heads, block_size, features]` where the
        tokens of the heads alternate; without a copy. `take` reads both."""
        return self.pair([in_blocks(data, block_size) for data in self.stored])

    def indexed(self, ids: torch.Tensor, block_size: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """What is stored, as rows, and the rows that hold the blocks `ids [n]`: for `index_select`."""
        if self.k.dim() == 3:
            heads = self.k.shape[1]
            return [data.view(-1, self.head_dim) for data in self.stored], _tokens(ids, block_size, heads)
        return [data.view(-1, block_size * self.head_dim) for data in self.stored], ids

    def write(self, slots: torch.Tensor | slice, *parts: torch.Tensor) -> None:
        """Store `[n, head_dim]` keys and values, or latents, at the token slots `[n]`."""
        for data, part in zip(self.stored, parts, strict=True):
            data[slots] = part

    def grow(self, pages: int) -> None:
        """Enlarge to at least `pages`; slots keep their numbers, new ones are zero."""
        if pages <= self.pages:
            return
        extra = max(pages, 2 * self.pages) - self.pages
        room = self.k.new_zeros((extra * PAGE, self.head_dim))
        self.stored = tuple(torch.cat((data, room)) for data in self.stored)


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
        return ids.reshape(self.rows, self.pages.shape[1] * per_page)

    def runs(self) -> np.ndarray:
        """First page of each row where its pages are consecutive, -1 where they are not, `[rows]`."""
        steps = np.arange(self.pages.shape[1])
        expected = self.pages[:, :1] + steps
        consecutive = ((self.pages == expected) | (steps >= self.counts[:, None])).all(1)
        return np.asarray(np.where(consecutive, self.pages[:, 0], -1))


def in_blocks(data: torch.Tensor, block_size: int) -> torch.Tensor:
    """A view of what a pool stores as `[blocks, block_size, features]`, or `[blocks, heads, block_size,
    features]`."""
    if data.dim() == 3:
        return data.view(-1, block_size, *data.shape[1:]).transpose(1, 2)
    return data.view(-1, block_size, data.shape[1])


def take(data: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The blocks `ids [n]` of `data [blocks, r, c]`, or of `[blocks, heads, r, c]` with the ids of KVPool:
    `[n, r, c]`.
    """
    if data.dim() == 3:
        if not data.is_contiguous():  # the values of a latent
            return torch.index_select(data, 0, ids)
        return torch.index_select(data.flatten(1), 0, ids).view(-1, *data.shape[1:])
    heads, size, features = data.shape[1:]
    if data.stride(1) != features:  # likewise
        return data[ids // heads, ids % heads]
    stored = data.transpose(1, 2).reshape(-1, features)
    return torch.index_select(stored, 0, _tokens(ids, size, heads)).view(-1, size, features)


def _tokens(ids: torch.Tensor, size: int, heads: int) -> torch.Tensor:
    """Places of the tokens of the blocks `ids [n]` of `size` tokens where heads alternate, `[n * size]`."""
    starts = torch.div(ids, heads, rounding_mode="floor").mul_((size - 1) * heads).add_(ids)
    return (starts[:, None] + _steps(size, heads, ids.device)).view(-1)


@functools.cache
def _steps(size: int, heads: int, device: torch.device) -> torch.Tensor:
    return torch.arange(size, device=device) * heads
