"""Attention of a decode step over the blocks that each row reads: block lists for sparse rows, the block
table for dense ones, in one launch."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vortex.kernels import attention_cuda
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.pool import KVPool

if TYPE_CHECKING:
    from vortex.kernels.xqa import XqaDecode

_LOG2_E = math.log2(math.e)
_SHARED = 200 << 10
"""Bytes of a multiprocessor's shared memory to keep tiles in."""
_INTERPRETED_PROGRAMS = 3


@dataclass(frozen=True)
class Tiling:
    """How the Triton kernel cuts its work: query heads and tokens of a tile, warps of a program, tiles in
    flight, and programs that share a multiprocessor."""

    heads: int
    tokens: int
    warps: int
    stages: int
    programs: int

    @classmethod
    def of(cls, group: int, token_bytes: int, value_dim: int, latent: bool) -> Tiling:
        """`token_bytes`: what one token of one kv head takes in the pool. Four programs a multiprocessor
        where the values of a head tile are few, and tiles of which three fit its share of memory. Triton
        takes two stages for each tile in flight where K and V are loaded apart."""
        heads = min(64, max(16, 1 << (group - 1).bit_length()))
        programs = 4 if heads * value_dim <= 16 * 128 else 2
        room = _SHARED // programs // (3 * token_bytes)
        tokens = min(64, max(16, 1 << (room.bit_length() - 1)))
        warps = 4 if heads * value_dim <= 16 * 256 else 8
        flying = 3 if room >= 16 else 2
        return cls(heads, tokens, warps, flying if latent else 2 * flying + 1, programs)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def attention_programs(heads: int, device: torch.device | str, latent_group: int = 1) -> int:
    """`StepSize.programs` for these kernels: parts that a step is cut into, per kv head, so that all parts of
    all kv heads run at once. One fills a multiprocessor. `latent_group`: query heads of a latent, of which a
    program takes at most 64; every part is read, and its results written, once for each 64."""
    device = torch.device(device)
    if device.type != "cuda":
        return 2 * _INTERPRETED_PROGRAMS
    return max(1, _multiprocessors(device) // (heads * -(-latent_group // 64)))


def segments(head_dim: int, latent_values: int) -> tuple[int, int, int, int]:
    """Columns of a key as two stretches `(count, width, count, width)`, the widths powers of 2 and at least
    16, or 0. A latent is cut where its values end."""
    first = latent_values or 1 << (head_dim.bit_length() - 1)
    rest = head_dim - first
    return first, _width(first), rest, _width(rest) if rest else 0


def _width(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length())


def decode_attention(
    backend: str, size: StepSize, group: int, head_dim: int, value_dim: int, device: torch.device | str
) -> SparseDecode | XqaDecode:
    """The decode attention of `VortexConfig.attention_backend`."""
    if backend == "trtllm":
        from vortex.kernels.xqa import XqaDecode

        return XqaDecode(size, group, head_dim, value_dim, device)
    return SparseDecode(size, group, head_dim, value_dim, device)


class SparseDecode:
    """Attention over `step.parts`, for steps of `size` and `group` query heads a kv head.

    Holds the parts' results until they are merged, so one serves all layers of a model, one after another.
    Nothing is allocated or waited for in `run`, and its launch does not depend on the step. Rows of requests
    without parts (padding) are left as they are; a part of no tokens gives zeros.
    """

    launches = 1

    def __init__(
        self, size: StepSize, group: int, head_dim: int, value_dim: int, device: torch.device | str
    ) -> None:
        self.size, self.group, self.head_dim, self.value_dim = size, group, head_dim, value_dim
        self.device = torch.device(device)
        pieces = size.parts * size.heads
        self.partials = (
            torch.empty((pieces, group, value_dim), dtype=torch.float32, device=device),
            torch.empty((2, pieces, group), dtype=torch.float32, device=device),
        )
        self._tickets = torch.zeros((size.rows, -(-group // 16), 4), dtype=torch.int32, device=device)

    def run(
        self, q: torch.Tensor, pool: KVPool, step: DeviceStep, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """Writes and returns `out [rows, group, value_dim]` for `q [requests, heads * group, head_dim]`; both
        may be views whose last dimension is contiguous. The products are of numbers in q's format, summed in
        float32; fp8 keys and values are converted to it."""
        if attention_cuda.serves(q, pool, out, self.size.block_size):
            attention_cuda.launch(q, pool, step, scale * _LOG2_E, out, *self.partials, self._tickets)
        else:
            self.run_triton(q, pool, step, scale, out)
        return out

    def run_triton(
        self, q: torch.Tensor, pool: KVPool, step: DeviceStep, scale: float, out: torch.Tensor
    ) -> torch.Tensor:
        """`run` by the kernel that serves every shape."""
        from vortex.kernels.attention_triton import decode

        size, k, v = self.size, pool.k, pool.v
        tiling = Tiling.of(self.group, pool.token_bytes, self.value_dim, bool(pool.kv_lora_rank))
        a, wide_a, b, wide_b = segments(self.head_dim, pool.kv_lora_rank)
        grid = (
            tiling.programs * _multiprocessors(self.device)
            if self.device.type == "cuda"
            else _INTERPRETED_PROGRAMS
        )
        decode[(grid,)](
            q, k, v, out, *self.partials, self._tickets,
            step.n, step.chosen, step.seq_len, step.table, step.lists, step.tokens,
            step.parts, step.part_count, step.part_first,
            scale * _LOG2_E, *q.stride()[:2], *_token_strides(k), *_token_strides(v), *out.stride()[:2],
            step.table.stride(0), step.lists.stride(0),
            size.heads, size.share, size.block_size, self.group,
            a, wide_a, b, wide_b, bool(pool.kv_lora_rank),
            tiling.heads, tiling.tokens, tiling.stages, "ieee" if q.dtype == torch.float32 else "tf32",
            num_warps=tiling.warps,
        )  # fmt: skip
        return out


def _token_strides(stored: torch.Tensor) -> tuple[int, int]:
    """Elements between slots and between heads."""
    return (stored.stride(0), stored.stride(1)) if stored.dim() == 3 else (stored.stride(0), 0)
