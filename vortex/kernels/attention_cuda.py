"""The decode attention kernels in CUDA: which shapes they serve, and their launches. See attention.cu."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from vortex.kernels.cuda import architecture, build, check, load, pointer, stream
from vortex.runtime.device import DeviceStep
from vortex.runtime.pool import KVPool

_FOLDER = Path(__file__).parent
_QUERIES = {torch.bfloat16: "__nv_bfloat16", torch.float16: "__half"}
_NARROW = {torch.float8_e4m3fn: 0, torch.float8_e5m2: 1}

_SHARED = 216 << 10
"""Bytes of shared memory for tiles."""
_TOKENS = 16
"""Tokens of a warp's tile."""
_RING = (227 << 10) - 10 * 1024
"""Bytes of shared memory that attention_wgmma.cu has for q and its ring of 32 tokens a stage."""


class Args(ctypes.Structure):
    """`Args` of attention.cuh."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "accs", "stats", "tickets")),
        *((name, ctypes.c_void_p) for name in ("n", "chosen", "seq_len", "table", "lists", "tokens")),
        *((name, ctypes.c_void_p) for name in ("parts", "part_count", "part_first")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_long) for name in ("q_request", "q_head", "out_row", "out_head")),
        *((name, ctypes.c_long) for name in ("k_slot", "k_head", "v_slot", "v_head", "room")),
        *((name, ctypes.c_int) for name in ("table_row", "list_row", "heads", "share")),
        *((name, ctypes.c_int) for name in ("block_shift", "group")),
    ]


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for; `values`: columns of a latent that are its value, 0 where K and V are
    apart. `warpgroups`: whether the GPU has warpgroup instructions, as Hopper alone does."""

    query: torch.dtype
    kv: torch.dtype
    head_dim: int
    values: int
    group: int
    warpgroups: bool = False

    @classmethod
    def of(cls, q: torch.Tensor, pool: KVPool, out: torch.Tensor) -> Variant:
        warpgroups = _has_warpgroups(q.device)
        return cls(q.dtype, pool.k.dtype, pool.head_dim, pool.kv_lora_rank, out.shape[1], warpgroups)

    @property
    def by_warpgroups(self) -> bool:
        """Whether attention_wgmma.cu is the kernel."""
        return self.warpgroups and self.values == 512 and self.head_dim <= 640

    @property
    def head_tiles(self) -> int:
        """Of 8 query heads, as many as there are registers for."""
        most = 8 if self.by_warpgroups else 3 if self.values else 2
        return min(most, -(-self.group // 8))

    @property
    def serves(self) -> bool:
        """Whether there is such a kernel."""
        dim, narrow = self.head_dim, self.kv in _NARROW
        if self.query not in _QUERIES or not (narrow or self.kv == self.query):
            return False
        if self.values:
            most = 640 if self.by_warpgroups or self.head_tiles < 3 else 576  # of what shared memory holds
            return not narrow and dim % 64 == 0 and dim <= most and self.values in (256, 512)
        return self.group <= 16 and dim in range(32, 256 // self.head_tiles + 1, 32 if narrow else 16)

    @property
    def source(self) -> str:
        """One file: the settings, the shared part, the kernel."""
        name = "attention.cu"
        if self.values:
            name = "attention_wgmma.cu" if self.by_warpgroups else "attention_mla.cu"
        settings = {"QUERY": _QUERIES[self.query], "DIM": self.head_dim, "HEAD_TILES": self.head_tiles}
        if self.values:
            row = 2 * self.head_dim
            stages = (_RING - 8 * self.head_tiles * row) // (32 * row) if self.by_warpgroups else 5
            settings |= {"VALUES": self.values, "STAGES": stages}
        else:
            tile = 2 * _TOKENS * (self.head_dim * self.kv.itemsize + 16)
            warps = 8 if 8 * 3 * tile <= _SHARED else 4
            settings |= {"KV_BYTES": self.kv.itemsize, "E5M2": _NARROW.get(self.kv, 0)}
            settings |= {"WARPS": warps, "STAGES": min(5, _SHARED // (warps * tile))}
        lines = [f"#define {name} {value}" for name, value in settings.items()]
        kernel = (_FOLDER / name).read_text()
        shared = (_FOLDER / "attention.cuh").read_text().replace("#pragma once\n", "")
        return "\n".join((*lines, shared, kernel.replace('#include "attention.cuh"\n', "")))


@functools.cache
def _has_warpgroups(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


@functools.cache
def _kernel(variant: Variant, device: torch.device) -> tuple[ctypes.CDLL, int]:
    """The library of a variant, and how many programs fill the device."""
    library = load(build("attention", variant.source, architecture(device)))
    each = ctypes.c_int()
    with torch.cuda.device(device):
        check(library.prepare(ctypes.byref(each)), "attention")
    return library, each.value * torch.cuda.get_device_properties(device).multi_processor_count


def serves(q: torch.Tensor, pool: KVPool, out: torch.Tensor, block_size: int) -> bool:
    """Whether `launch` takes these: on a GPU, blocks of 8 tokens or more, everything in whole, aligned
    vectors."""
    return (
        q.is_cuda
        and Variant.of(q, pool, out).serves
        and block_size >= 8
        and block_size & (block_size - 1) == 0
        and all(_aligned(x, 16) for x in pool.stored)
        and _aligned(q, 16)
        and _aligned(out, 8)
    )


def _aligned(x: torch.Tensor, to: int) -> bool:
    """Whether every vector along the last dimension starts at a multiple of `to` bytes."""
    return x.stride(-1) == 1 and all(
        at % to == 0 for at in (x.data_ptr(), *(s * x.itemsize for s in x.stride()[:-1]))
    )


def launch(
    q: torch.Tensor,
    pool: KVPool,
    step: DeviceStep,
    scale: float,
    out: torch.Tensor,
    accs: torch.Tensor,
    stats: torch.Tensor,
    tickets: torch.Tensor,
) -> None:
    """One launch on the current stream; `scale` includes log2 e."""
    size, k, v = step.size, pool.k, pool.v
    library, programs = _kernel(Variant.of(q, pool, out), q.device)
    strides = [(x.stride(0), x.stride(1) if x.dim() == 3 else 0) for x in (k, v)]
    args = Args(
        *map(pointer, (q, k, v, out, accs, stats, tickets, step.n, step.chosen, step.seq_len, step.table)),
        *map(pointer, (step.lists, step.tokens, step.parts, step.part_count, step.part_first)),
        scale,
        *q.stride()[:2],
        *out.stride()[:2],
        *(stride * k.itemsize for pair in strides for stride in pair),
        stats.shape[1],
        step.table.stride(0),
        step.lists.stride(0),
        size.heads,
        size.share,
        size.block_size.bit_length() - 1,
        out.shape[1],
    )
    check(library.attend(ctypes.byref(args), programs, stream()), "attention")
