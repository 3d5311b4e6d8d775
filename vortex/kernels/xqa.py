# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""`attention_backend="trtllm"`: decode attention by the XQA kernel that FlashInfer packs, on block tables and
token lengths.

XQA knows pages, not heads of pages, so each row is a request of its own with one kv head: a page is the
`block_size` tokens from one (slot, head) on, read through a strided view of the pool.
"""

from __future__ import annotations

import math

import torch

from vortex.errors import ConfigError
from vortex.kernels.triton_setup import tl, triton
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.pool import KVPool

PAGES = (16, 32, 64, 128)
_SEMAPHORES, _SCRATCH = 8 << 20, 248 << 20


@triton.jit
def list_pages(
    pages, lengths, n, chosen, seq_len, table, lists, tokens, page_row, table_row, list_row,
    HEADS: tl.constexpr, SHARE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program a row: `pages [rows, blocks]`, `lengths [rows]` of what it reads. Padding reads one token."""
    row = tl.program_id(0)
    request = row // HEADS
    dense = tl.load(chosen + request) == tl.load(n + request)
    length = tl.where(dense, tl.load(seq_len + request), tl.load(tokens + row))
    tl.store(lengths + row, tl.maximum(length, 1))
    if length < 1:
        tl.store(pages + row.to(tl.int64) * page_row, 0)
    count = tl.cdiv(length, BLOCK)  # of a Union, `chosen` is something else
    for first in range(0, count, WIDTH):
        at = first + tl.arange(0, WIDTH)
        mask = at < count
        listed = tl.load(lists + row.to(tl.int64) * list_row + at, mask=mask & (dense == 0), other=0)
        found = tl.load(table + (row // SHARE).to(tl.int64) * table_row + at, mask=mask & dense, other=0)
        slot = tl.where(dense, found, listed // SHARE) * BLOCK
        head = tl.where(dense, row % SHARE, listed % SHARE)
        tl.store(pages + row.to(tl.int64) * page_row + at, slot * SHARE + head, mask=mask)


def refusal(query: torch.dtype, kv: torch.dtype, geometry: tuple[int, int], latent: bool) -> str | None:
    """Why XQA does not serve heads of `geometry = (block_size, head_dim)`; None where it does."""
    block_size, head_dim = geometry
    if latent:
        return "it reads keys and values, not latents (MLA)"
    if query not in (torch.bfloat16, torch.float16) or kv not in (query, torch.float8_e4m3fn):
        return f"it multiplies bfloat16 or float16 by the same or by fp8_e4m3, not {query} by {kv}"
    if block_size not in PAGES:
        return f"its pages have {', '.join(map(str, PAGES))} tokens, not {block_size}"
    if head_dim % 16 or not 16 <= head_dim <= 256:
        return f"its heads have a multiple of 16 features, at most 256, not {head_dim}"
    return None


class XqaDecode:
    """Like `SparseDecode`, by XQA, in two launches. Rows of padding requests get some finite or infinite
    garbage. Raises ConfigError in the first `run` for what XQA does not serve."""

    launches = 2

    def __init__(
        self, size: StepSize, group: int, head_dim: int, value_dim: int, device: torch.device | str
    ) -> None:
        self.size, self.group, self.head_dim = size, group, head_dim
        self._pages = torch.zeros((size.rows, size.blocks), dtype=torch.int32, device=device)
        self._lengths = torch.ones(size.rows, dtype=torch.int32, device=device)
        self._workspace = torch.zeros(_SEMAPHORES + _SCRATCH, dtype=torch.uint8, device=device)

    def run(
        self, q: torch.Tensor, pool: KVPool, step: DeviceStep, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """As `SparseDecode.run`; queries that do not lie side by side are copied, and out does."""
        from flashinfer.decode import xqa_batch_decode_with_kv_cache

        self.check(q, pool)
        self.list(step)
        q = q.reshape(-1, self.group, self.head_dim)
        xqa_batch_decode_with_kv_cache(
            query=q,
            kv_cache=self.views(pool),
            workspace_buffer=self._workspace,
            block_tables=self._pages[: len(q)],
            seq_lens=self._lengths[: len(q)],
            max_seq_len=self.size.blocks * self.size.block_size,
            bmm1_scale=scale,
            bmm2_scale=1.0,
            out=out,
            kv_layout="NHD",
        )
        return out

    def check(self, q: torch.Tensor, pool: KVPool) -> None:
        """Raises ConfigError for what XQA does not serve."""
        geometry = self.size.block_size, self.head_dim
        reason = refusal(q.dtype, pool.k.dtype, geometry, bool(pool.kv_lora_rank))
        if reason:
            raise ConfigError(f"attention_backend='trtllm' is XQA, and {reason}: use 'flashinfer'")

    def list(self, step: DeviceStep) -> None:
        """What every row reads, as pages."""
        size = self.size
        list_pages[(size.rows,)](
            *(self._pages, self._lengths, step.n, step.chosen, step.seq_len),
            *(step.table, step.lists, step.tokens),
            *(self._pages.stride(0), step.table.stride(0), step.lists.stride(0)),
            *(size.heads, size.share, size.block_size, 256),
        )

    def tables(self, row: int) -> tuple[torch.Tensor, int]:
        """The pages listed for a row, and its tokens."""
        length = int(self._lengths[row])
        return self._pages[row, : -(-length // self.size.block_size)], length

    def views(self, pool: KVPool) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V as pages of one head `[pages, block_size, 1, head_dim]`; the page `slot * heads + head`
        starts there."""
        heads, dim, tokens = self.size.share, self.head_dim, self.size.block_size
        views = []
        for stored in (pool.k, pool.v):
            slot, head = stored.stride(0), stored.stride(1) if stored.dim() == 3 else stored.stride(0)
            if slot != heads * head or math.prod(stored.shape[1:]) != heads * dim:
                raise ConfigError("attention_backend='trtllm' needs a pool whose slots hold all heads evenly")
            pages = (stored.shape[0] - tokens) * heads + heads
            views.append(stored.as_strided((pages, tokens, 1, dim), (head, slot, head, 1)))
        return views[0], views[1]
