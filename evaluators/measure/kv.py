"""K/V or latents to time attention on: of a stored prompt, or synthetic of the same geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evaluators.measure.workload import STORE, Workload
from vortex.engine.hf.geometry import ModelShape
from vortex.engine.hf.store import PromptStore
from vortex.runtime.pool import PAGE, KVPool, PageTable

ROOM = 128
MEMORY_BYTES = 1 << 30
"""Synthetic pools stay below this: layers then share them in turn."""


@dataclass(frozen=True)
class Cache:
    """The pools of every layer (they may repeat) for a batch of requests of `lengths` tokens, with room for
    new ones."""

    pools: Sequence[KVPool]
    pages: PageTable
    lengths: np.ndarray
    room: int


def stored_cache(workload: Workload) -> Cache:
    """The first prompt of the workload, mapped anew: new tokens are written into this mapping only."""
    store = PromptStore.open(workload.path / STORE)
    rows = [workload.positions[0]]
    lengths = np.array([len(store.prompts[row].tokens) for row in rows], dtype=np.int64)
    return Cache(store.pools, store.pages(rows), lengths, min(store.room(row) for row in rows))


def synthetic_cache(shape: ModelShape, length: int, batch: int, seed: int) -> Cache:
    """Random K/V or latents of `length` tokens in the geometry of a model."""
    each = -(-(length + ROOM) // PAGE)
    rows = batch * shape.heads
    generator = torch.Generator().manual_seed(seed)

    def random_pool() -> KVPool:
        pool = shape.pool(rows * each, torch.float32, torch.device("cpu"))
        for data in pool.stored:
            data.normal_(generator=generator)
        return pool

    made = [random_pool()]
    distinct = max(1, min(shape.layers, MEMORY_BYTES // (rows * each * PAGE * made[0].token_bytes)))
    made += [random_pool() for _ in range(distinct - 1)]
    pages = PageTable.contiguous(np.arange(rows) * each, np.full(rows, each))
    lengths = np.full(batch, length, dtype=np.int64)
    return Cache([made[i % distinct] for i in range(shape.layers)], pages, lengths, ROOM)
