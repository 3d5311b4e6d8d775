"""Decode steps that the host plans: the `torch` target, on a CPU. No CUDA graph can hold one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vortex.budget.compiled import policy_of
from vortex.engine.sgl.counters import EngineCounters
from vortex.engine.sgl.deployed import Deployed
from vortex.engine.sgl.target import TORCH
from vortex.runtime.attention import Workspace
from vortex.runtime.fields import clear
from vortex.runtime.plan import BlockList, Plan, SparseRows, make_plan, whole_list
from vortex.runtime.select import choose_blocks
from vortex.runtime.table import BlockIds
from vortex.targets import get_target

REFRESH_TOKENS = 1 << 16
"""Tokens of one kv head whose blocks are summarised at a time: bounds the float32 intermediates."""


@dataclass(frozen=True)
class DecodeStep:
    """What the sparse layers of a decode step with sparse requests share. `sparse`, `dense`: row numbers of
    the two kinds, None for all rows; `whole`: everything that the dense rows read, and where it lies.
    """

    plan: Plan
    rows: SparseRows
    table: BlockIds
    sparse: torch.Tensor | None = None
    dense: torch.Tensor | None = None
    whole: BlockList | None = None
    whole_ids: torch.Tensor | None = None


class HostDeployed(Deployed):
    """See `Deployed`. Steps without a sparse request are the dense backend's."""

    target = TORCH

    def check(self) -> None:
        """Serves every config."""

    def start(self) -> None:
        self.policy = policy_of(self.config)
        self.runs = get_target(TORCH)
        self.program = self.runs.program(self.graph, self.geometry, self.config.dtype)
        self.quotas = tuple(selection.k for selection in self.program.selections)
        self.work = Workspace()
        self.step: DecodeStep | None = None
        self._union_reads: torch.Tensor | None = None

    def plan(self, batch: Any, requests: int, req_to_token: torch.Tensor) -> bool:
        seq_len = batch.seq_lens_cpu.numpy().astype("int64")
        device = req_to_token.device
        plan = make_plan(seq_len, self.block_size, self.config, self.policy)
        ends = np.flatnonzero(seq_len % self.block_size == 0)
        if len(ends):
            self.finished = self._ids_at(batch.out_cache_loc[torch.from_numpy(ends).to(device)])
        self.counters.decode_steps += 1
        self.step = self._step(plan, batch.req_pool_indices, req_to_token) if plan.sparse.any() else None
        return self.step is not None

    def finished_blocks(self, slots: torch.Tensor, requests: int) -> torch.Tensor | None:
        """Waits for the device."""
        ends = slots[(slots + 1) % self.block_size == 0]
        return self._ids_at(ends) if len(ends) else None

    def attend(self, layer_id: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        step, layer = self.step, self.layers[layer_id]
        assert step is not None
        self.summarise_finished(layer_id)
        pool, batch = layer.pool, len(step.plan.n)
        every = q[:batch].reshape(-1, self.geometry.group, q.shape[-1])
        rows = every if step.sparse is None else every[step.sparse]
        scores = self.program.scores(rows, layer, step.table, step.rows)
        listed = choose_blocks(self.runs, scores, step.rows, self.quotas, self.config.dtype)
        ids = step.table.ids.gather(1, listed.positions)
        found = self.runs.attend(rows, pool, ids, listed, self.block_size, scale, self.work)
        self._count(step, listed)
        out = found.new_zeros((len(q), *q.shape[1:-1], found.shape[-1]))
        placed = out[:batch].view(len(every), *found.shape[1:])
        if step.dense is None:
            placed.copy_(found)
            return out
        assert step.whole is not None
        assert step.whole_ids is not None
        placed[step.sparse] = found
        placed[step.dense] = self.runs.attend(
            every[step.dense], pool, step.whole_ids, step.whole, self.block_size, scale, self.work
        )
        return out

    def summarise(self, layer_id: int, blocks: torch.Tensor) -> None:
        layer = self.layers[layer_id]
        for part in torch.split(blocks, max(1, REFRESH_TOKENS // self.block_size)):
            clear(layer, self.saved, part)
            self.program.summarize(layer, part)
        self.counters.blocks_summarised += len(blocks)

    def summarise_all(self) -> None:
        for index, layer in self.layers.items():
            self.summarise(index, torch.arange(self.blocks_of(layer), device=self.room.device))
        self.counters.blocks_summarised = 0

    def report(self) -> EngineCounters:
        if self._union_reads is None:
            return self.counters.model_copy()
        reads = self.counters.blocks_read + int(self._union_reads)
        return self.counters.model_copy(update={"blocks_read": reads})

    def _step(self, plan: Plan, requests: torch.Tensor, req_to_token: torch.Tensor) -> DecodeStep:
        device, counters = req_to_token.device, self.counters
        ids = self._table(int(plan.n.max()), requests, req_to_token)
        rows = SparseRows(plan, self.heads, self.block_size, self.config, device)
        counters.sparse_steps += 1
        counters.rows_sparse += len(rows)
        counters.work_chunks += plan.chunks(self.config) * self.heads
        if plan.sparse.all():
            self._own(rows, requests)
            return DecodeStep(plan, rows, BlockIds(ids, self.block_size))
        sparse, dense = (self._rows_of(np.flatnonzero(x), device) for x in (plan.sparse, ~plan.sparse))
        self._own(rows, requests[torch.from_numpy(np.flatnonzero(plan.sparse)).to(device)])
        counters.rows_dense += len(dense)
        whole = whole_list(np.repeat(plan.seq_len[~plan.sparse], self.heads), self.block_size, device)
        table = BlockIds(ids[sparse], self.block_size)
        return DecodeStep(plan, rows, table, sparse, dense, whole, ids[dense].gather(1, whole.positions))

    def _count(self, step: DecodeStep, listed: BlockList) -> None:
        self.counters.blocks_total += int(step.plan.n.sum()) * self.heads
        whole = ~step.plan.sparse
        self.counters.blocks_read += int(step.plan.n[whole].sum()) * self.heads
        if len(self.quotas) == 1:
            self.counters.blocks_read += int(step.plan.chosen[step.plan.sparse].sum()) * self.heads
            return
        read = torch.div(listed.tokens + self.block_size - 1, self.block_size, rounding_mode="floor").sum()
        self._union_reads = read if self._union_reads is None else self._union_reads + read

    def _own(self, rows: SparseRows, requests: torch.Tensor) -> None:
        """Request fields lie where SGLang numbers the requests."""
        if self.program.request_fields:
            rows.owners = self.ids_of(requests.long())

    def _table(self, blocks: int, requests: torch.Tensor, req_to_token: torch.Tensor) -> torch.Tensor:
        """Ids of the first `blocks` blocks of every row, `[batch * heads, blocks]`."""
        page_size = self.room.page_size
        per_page = page_size // self.block_size
        pages = -(-blocks // per_page)
        first = req_to_token[:, : pages * page_size : page_size][requests].long()
        each = torch.arange(per_page, device=first.device)
        own = (first // page_size * per_page)[:, :, None] + each
        own = own.view(len(first), 1, -1)[:, :, :blocks]
        head = torch.arange(self.heads, device=first.device)[None, :, None]
        return (own * self.heads + head).reshape(-1, blocks)

    def _ids_at(self, slots: torch.Tensor) -> torch.Tensor:
        """Ids of the blocks of all kv heads that these token slots lie in."""
        return self.ids_of(slots.long() // self.block_size)

    def _rows_of(self, requests: np.ndarray, device: torch.device) -> torch.Tensor:
        return self.ids_of(torch.from_numpy(requests).to(device))
