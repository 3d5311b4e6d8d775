"""Dense decode attention as others do it: the baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.kernels.cases import Case
from benchmarks.kernels.timing import Work
from vortex.runtime.pool import KVPool

WORKSPACE_BYTES = 512 << 20
FLASH_MLA_PAGE = 64
TOLERANCE = 2e-2
"""Largest relative error of an output in bfloat16."""


@dataclass(frozen=True)
class Layers:
    """What a baseline runs on: the pool and the query of each layer, and the block table of all."""

    case: Case
    pools: list[KVPool]
    table: torch.Tensor
    q: list[torch.Tensor]

    @property
    def starts(self) -> torch.Tensor:
        """0 to batch."""
        return torch.arange(self.case.batch + 1, dtype=torch.int32, device=self.table.device)

    @property
    def lengths(self) -> torch.Tensor:
        return torch.full_like(self.starts[1:], self.case.context)

    def workspace(self) -> torch.Tensor:
        return torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=self.table.device)


@dataclass(frozen=True)
class Baseline:
    """A kernel of dense attention. `plan` gives the work of each layer, which returns `[batch, query heads,
    value_dim]`. `fair`: whether a serving engine would choose it for speed."""

    name: str
    plan: Callable[[Layers], list[Work]]
    fair: bool = True


def baselines(case: Case) -> list[Baseline]:
    """The kernels that are there on Hopper for the case."""
    if not case.model.kv_lora_rank:
        return [
            Baseline("FlashInfer, tensor cores", partial(_flashinfer, True)),
            Baseline("FA3", _fa3),
            Baseline("FlashInfer, CUDA cores", partial(_flashinfer, False), fair=False),
        ]
    return [
        Baseline("FlashMLA", _flash_mla),
        *(
            Baseline(f"FlashInfer MLA {backend}, page {page}", partial(_flashinfer_mla, backend, page))
            for page in (case.model.block_size, 1)
            for backend in ("fa3", "fa2")
        ),
    ]


def _flashinfer(tensor_cores: bool, on: Layers) -> list[Work]:
    import flashinfer

    model, page = on.case.model, on.case.model.block_size
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        on.workspace(), "NHD", use_tensor_cores=tensor_cores
    )
    wrapper.plan(
        *(on.starts * on.case.blocks, on.table.flatten(), torch.full_like(on.lengths, page)),
        *(model.heads * model.group, model.heads, model.head_dim, page),
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
        sm_scale=model.logit_scale,
    )
    out = torch.empty_like(on.q[0])
    return [
        partial(wrapper.run, q, tuple(_paged(part, page) for part in pool.stored), out=out)
        for q, pool in zip(on.q, on.pools, strict=True)
    ]


def _fa3(on: Layers) -> list[Work]:
    from sgl_kernel.flash_attn import flash_attn_with_kvcache

    model = on.case.model

    def work(q: torch.Tensor, pool: KVPool) -> Work:
        k, v = (_paged(part, model.block_size) for part in pool.stored)
        fixed = {"page_table": on.table, "cache_seqlens": lengths, "softmax_scale": model.logit_scale}
        return lambda: flash_attn_with_kvcache(q[:, None], k, v, causal=True, **fixed)[:, 0]

    lengths = on.lengths
    return [work(q, pool) for q, pool in zip(on.q, on.pools, strict=True)]


def _flashinfer_mla(backend: str, page: int, on: Layers) -> list[Work]:
    from flashinfer.mla import BatchMLAPagedAttentionWrapper

    model, rank, per = on.case.model, on.case.model.kv_lora_rank, on.case.model.block_size // page
    pages = on.table[..., None] * per + torch.arange(per, dtype=torch.int32, device=on.table.device)
    wrapper = BatchMLAPagedAttentionWrapper(on.workspace(), backend=backend)
    wrapper.plan(
        *(on.starts, on.starts * (on.case.context // page), pages.flatten(), on.lengths),
        *(model.group, rank, model.head_dim - rank, page, False, model.logit_scale),
        *(torch.bfloat16, torch.bfloat16),
    )
    out = on.q[0].new_empty((*on.q[0].shape[:2], rank))

    def work(q: torch.Tensor, latents: torch.Tensor) -> Work:
        parts = q[..., :rank], q[..., rank:], latents[..., :rank], latents[..., rank:]
        return partial(wrapper.run, *parts, out=out)

    return [work(q, _paged(pool.k, page)[:, :, 0]) for q, pool in zip(on.q, on.pools, strict=True)]


def _flash_mla(on: Layers) -> list[Work]:
    from sgl_kernel.flash_mla import FlashMLASchedMeta, flash_mla_with_kvcache

    model, per = on.case.model, FLASH_MLA_PAGE // on.case.model.block_size
    pages = (on.table[:, ::per] // per).contiguous()
    fixed = pages, on.lengths, model.kv_lora_rank, FlashMLASchedMeta()  # which the first call fills

    def work(q: torch.Tensor, pool: KVPool) -> Work:
        latents = _paged(pool.k, FLASH_MLA_PAGE)
        return lambda: flash_mla_with_kvcache(q[:, None], latents, *fixed, softmax_scale=model.logit_scale)[
            0
        ][:, 0]

    return [work(q, pool) for q, pool in zip(on.q, on.pools, strict=True)]


def _paged(stored: torch.Tensor, page: int) -> torch.Tensor:
    return stored.view(-1, page, *stored.shape[1:])


def error(on: Layers, out: torch.Tensor) -> float:
    """The largest relative error of a query head of the first layer's first and last request, against
    float32."""
    model, q = on.case.model, on.q[0]
    worst = 0.0
    for request in {0, on.case.batch - 1}:
        offsets = torch.arange(model.block_size, device=q.device)
        slots = (on.table[request, :, None].long() * model.block_size + offsets).flatten()
        k, v = on.pools[0].pair([part[slots].float().transpose(0, 1) for part in on.pools[0].stored])
        rows = q[request].float().view(model.heads, model.group, -1)
        expected = torch.softmax(rows @ k.transpose(1, 2) * model.logit_scale, -1) @ v
        off = (out[request].float().view_as(expected) - expected).norm(dim=-1) / expected.norm(dim=-1)
        worst = max(worst, float(off.nan_to_num(nan=torch.inf).max()))
    return worst
