"""Decode attention of one query token per row, with the query heads of a group as the rows of a matrix.

K and V are never repeated over query heads: that would read the cache `group` times. A latent (MLA) is read
once for both.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from vortex.runtime.plan import BlockList
from vortex.runtime.pool import PAGE, KVPool, PageTable

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 1 << 28}
"""Gathered at a time. On a CPU they are still in its cache when the products read them; a GPU is only kept
from running out of memory."""


class Workspace:
    """Buffers that live as long as a decode: a step allocates nothing of the size of the cache."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """An uninitialised tensor of `shape`; the same name returns the same memory."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if (
            buffer is None
            or buffer.numel() < size
            or buffer.dtype != like.dtype
            or buffer.device != like.device
        ):
            buffer = torch.empty(size, dtype=like.dtype, device=like.device)
            self._buffers[name] = buffer
        return buffer[:size].view(shape)


def sparse_attention(
    q: torch.Tensor,
    pool: KVPool,
    blocks: torch.Tensor,
    given: BlockList,
    block_size: int,
    scale: float,
    work: Workspace,
) -> torch.Tensor:
    """Attention of `q [rows, group, head_dim]` over the block ids `blocks [rows, width]`, the true last
    block of a row last; only the first `given.tokens [rows]` tokens of the list count: `[rows, group,
    value_dim]`. Reads these blocks and nothing else of the pool.
    """
    rows, width = blocks.shape
    group, dim = q.shape[1:]
    chunk = max(1, min(rows, CHUNK_BYTES[q.device.type] // (width * block_size * pool.token_bytes)))
    span = width * block_size
    out = q.new_empty((rows, group, pool.value_dim))
    for first in range(0, rows, chunk):
        last = min(rows, first + chunk)
        count = last - first
        ids = blocks[first:last].reshape(-1)
        gathered = []
        stored, places = pool.indexed(ids, block_size)
        for index, data in enumerate(stored):
            part = work.take(f"stored{index}", (len(places), data.shape[1]), data)
            torch.index_select(data, 0, places, out=part)
            gathered.append(part.view(count, span, dim).to(q.dtype))
        k, v = pool.pair(gathered)
        logits = _logits(q[first:last], k, work)
        logits[:, :, given.full :].masked_fill_(given.beyond[first:last, None], -torch.inf)
        # What another request left there may be NaN, which a weight of 0 does not take away.
        v[:, given.full :].masked_fill_(given.beyond[first:last, :, None], 0)
        torch.bmm(_weights(logits, scale, q.dtype), v, out=out[first:last])
    return out


def dense_attention(
    q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
) -> torch.Tensor:
    """Attention of `q [rows, group, head_dim]` over all `seq_len [rows]` tokens of each row: `[rows, group,
    value_dim]`.

    Rows `heads * i .. heads * i + heads - 1` are one request and share a length. Consecutive pages are read
    in place.
    """
    out = q.new_empty((*q.shape[:2], pool.value_dim))
    runs = pages.runs()
    for first in range(0, len(seq_len), heads):
        rows = slice(first, first + heads)
        length = int(seq_len[first])
        k, v = pool.pair([_tokens(data, pages, runs, first, heads, length) for data in pool.stored])
        torch.bmm(_weights(_logits(q[rows], k), scale, q.dtype), v, out=out[rows])
    return out


def _logits(q: torch.Tensor, k: torch.Tensor, work: Workspace | None = None) -> torch.Tensor:
    """`q k^T` in float32: rounded to 16 bits, a logit of 30 would be off by up to 6% of its weight."""
    if q.dtype == torch.float32:
        out = None if work is None else work.take("logits", (*q.shape[:2], k.shape[1]), q)
        return torch.bmm(q, k.transpose(1, 2), out=out)
    if q.is_cuda:
        return torch.bmm(q, k.transpose(1, 2), out_dtype=torch.float32)
    return torch.bmm(q.float(), k.transpose(1, 2).float())


def _weights(logits: torch.Tensor, scale: float, dtype: torch.dtype) -> torch.Tensor:
    """Softmax of `scale * logits [float32]` as `dtype`. Overwrites the logits."""
    return torch.softmax(logits.mul_(scale), -1).to(dtype)


def _tokens(
    data: torch.Tensor, pages: PageTable, runs: np.ndarray, first: int, heads: int, length: int
) -> torch.Tensor:
    """The first `length` tokens of `heads` rows, `[heads, length, head_dim]`."""
    starts = runs[first : first + heads]
    steps = np.diff(starts)
    dim = data.shape[1]
    if (starts >= 0).all() and (len(steps) == 0 or (steps == steps[0]).all()) and (steps >= 0).all():
        step = int(steps[0]) * PAGE if len(steps) else 0
        return data.as_strided((heads, length, dim), (step * dim, dim, 1), int(starts[0]) * PAGE * dim)
    owned = torch.from_numpy(pages.pages[first : first + heads, : -(-length // PAGE)].reshape(-1)).to(
        data.device
    )
    return data.view(-1, PAGE * dim).index_select(0, owned).view(heads, -1, dim)[:, :length]
