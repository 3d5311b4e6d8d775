"""One flow on one rank's KV pool: its program, its summaries, and the decode step through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vortex.budget.compiled import policy_of
from vortex.engine.sgl.counters import EngineCounters
from vortex.errors import ConfigError
from vortex.graph.model import Format, Stage
from vortex.runtime.attention import Workspace
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.runtime.plan import BlockList, Plan, SparseRows, make_plan, whole_list
from vortex.runtime.pool import KVPool
from vortex.runtime.select import choose_blocks
from vortex.runtime.table import BlockIds
from vortex.targets import LayerCache, get_target

if TYPE_CHECKING:
    from vortex.config import VortexConfig
    from vortex.graph.geometry import Geometry
    from vortex.graph.model import FlowGraph

TARGET = "torch"
"""The target that engines run; it reads the plan on the host, so CUDA graphs are off."""
REFRESH_TOKENS = 1 << 16
"""Tokens of one kv head whose blocks are summarised at a time: bounds the float32 intermediates."""


@dataclass(frozen=True)
class DecodeStep:
    """What the sparse layers of one decode step share. `finished`: ids of the blocks that its tokens
    complete. `rows` None: no request is sparse. `sparse`, `dense`: row numbers of the two kinds, None for
    all rows; `whole`: everything that the dense rows read, and where it lies.
    """

    plan: Plan
    finished: torch.Tensor | None
    rows: SparseRows | None = None
    table: BlockIds | None = None
    sparse: torch.Tensor | None = None
    dense: torch.Tensor | None = None
    whole: BlockList | None = None
    whole_ids: torch.Tensor | None = None


class Deployed:
    """`pools`: of each sparse layer by its number in the model. `request_slots`: how many requests SGLang
    numbers, its padding row included. Raises VortexError where the flow does not fit the model."""

    def __init__(
        self,
        config: VortexConfig,
        graph: FlowGraph,
        geometry: Geometry,
        pools: Mapping[int, KVPool],
        heads: int,
        page_size: int,
        request_slots: int,
    ) -> None:
        self.config, self.graph, self.geometry = config, graph, geometry
        self.heads, self.page_size, self.block_size = heads, page_size, geometry.block_size
        self.policy = policy_of(config)
        self.target = get_target(TARGET)
        self.program = self.target.program(graph, geometry, config.dtype)
        self.quotas = tuple(selection.k for selection in self.program.selections)
        self.saved = saved_fields(graph.instantiate(geometry))
        self.layers = {index: LayerCache(index, pool) for index, pool in pools.items()}
        dtype = TORCH_DTYPES[config.dtype]
        for layer in self.layers.values():
            device = layer.pool.k.device
            blocks = layer.pool.k.shape[0] // self.block_size * heads
            layer.fields = {
                name: torch.zeros((blocks, *shape), dtype=dtype, device=device)
                for name, shape in self.program.fields.items()
            }
            layer.requests = {
                name: torch.zeros((request_slots * heads, *shape), device=device)
                for name, shape in self.program.request_fields.items()
            }
        self.work = Workspace()
        self.counters = EngineCounters(
            flow=config.module_name or "",
            graph=graph.hash,
            target=TARGET,
            sparse_layers=len(self.layers),
            summary_bytes=sum(
                field.nbytes
                for layer in self.layers.values()
                for field in (*layer.fields.values(), *layer.requests.values())
            ),
        )
        self._union_reads: torch.Tensor | None = None

    def finished_blocks(self, slots: torch.Tensor) -> torch.Tensor | None:
        """Ids of the blocks, of all kv heads, that the tokens in `slots [tokens]` complete. Waits for the
        device: for prefill only."""
        ends = slots[(slots + 1) % self.block_size == 0].long()
        return self._ids_of(ends) if len(ends) else None

    def start_requests(self, requests: torch.Tensor) -> None:
        """Request fields of the requests `[n]`, whose prompts are being prefilled, start as zeros."""
        for layer in self.layers.values():
            for field in layer.requests.values():
                field.view(-1, self.heads, *field.shape[1:])[requests] = 0

    def summarise(self, layer_id: int, finished: torch.Tensor | None) -> None:
        """Run the cache stage of a layer for these block ids `[n]`, any number of times: it reads the
        pool."""
        if finished is None:
            return
        layer = self.layers[layer_id]
        for part in torch.split(finished, max(1, REFRESH_TOKENS // self.block_size)):
            for name in self.saved:
                layer.fields[name][part] = 0
            self.program.summarize(layer, part)
        self.counters.blocks_summarised += len(finished)

    def summarise_all(self) -> None:
        """Summaries of every block in the pool, whatever wrote it."""
        for index, layer in self.layers.items():
            blocks = layer.pool.k.shape[0] // self.block_size * self.heads
            self.summarise(index, torch.arange(blocks, device=layer.pool.k.device))
        self.counters.blocks_summarised = 0

    def plan(
        self,
        seq_len: np.ndarray,
        requests: torch.Tensor,
        slots: torch.Tensor,
        req_to_token: torch.Tensor,
    ) -> DecodeStep:
        """The step of requests of `seq_len [batch]` tokens, the current ones included, which go to `slots
        [batch]`. `requests [batch]` are their rows of `req_to_token`, which is read here and not later.
        """
        device = slots.device
        plan = make_plan(seq_len, self.block_size, self.config, self.policy)
        ends = np.flatnonzero(seq_len % self.block_size == 0)
        finished = None
        if len(ends):
            finished = self._ids_of(slots[torch.from_numpy(ends).to(device)].long())
        counters = self.counters
        counters.decode_steps += 1
        if not plan.sparse.any():
            return DecodeStep(plan, finished)
        ids = self._table(int(plan.n.max()), requests, req_to_token)
        rows = SparseRows(plan, self.heads, self.block_size, self.config, device)
        counters.sparse_steps += 1
        counters.rows_sparse += len(rows)
        counters.work_chunks += plan.chunks(self.config) * self.heads
        if plan.sparse.all():
            self._own(rows, requests)
            return DecodeStep(plan, finished, rows, BlockIds(ids, self.block_size))
        sparse, dense = (self._rows_of(np.flatnonzero(x), device) for x in (plan.sparse, ~plan.sparse))
        self._own(rows, requests[torch.from_numpy(np.flatnonzero(plan.sparse)).to(device)])
        counters.rows_dense += len(dense)
        whole = whole_list(np.repeat(seq_len[~plan.sparse], self.heads), self.block_size, device)
        table = BlockIds(ids[sparse], self.block_size)
        return DecodeStep(
            plan, finished, rows, table, sparse, dense, whole, ids[dense].gather(1, whole.positions)
        )

    def attend(self, step: DecodeStep, layer_id: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of `q [batch, heads * group, head_dim]` in a step with sparse rows: `[batch, heads *
        group, value_dim]`. The new tokens are in the pool and the finished blocks summarised."""
        assert step.rows is not None
        assert step.table is not None
        pool = self.layers[layer_id].pool
        every = q.reshape(-1, self.geometry.group, q.shape[-1])
        rows = every if step.sparse is None else every[step.sparse]
        scores = self.program.scores(rows, self.layers[layer_id], step.table, step.rows)
        listed = choose_blocks(self.target, scores, step.rows, self.quotas, self.config.dtype)
        ids = step.table.ids.gather(1, listed.positions)
        found = self.target.attend(rows, pool, ids, listed, self.block_size, scale, self.work)
        self._count(step, listed)
        if step.dense is None:
            return found.view(*q.shape[:2], -1)
        assert step.whole is not None
        assert step.whole_ids is not None
        out = found.new_empty((len(every), *found.shape[1:]))
        out[step.sparse] = found
        out[step.dense] = self.target.attend(
            every[step.dense], pool, step.whole_ids, step.whole, self.block_size, scale, self.work
        )
        return out.view(*q.shape[:2], -1)

    def report(self) -> EngineCounters:
        """The counters now. Waits for the device."""
        if self._union_reads is None:
            return self.counters.model_copy()
        reads = self.counters.blocks_read + int(self._union_reads)
        return self.counters.model_copy(update={"blocks_read": reads})

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
            rows.owners = self._over_heads(requests.long()).view(-1)

    def _table(self, blocks: int, requests: torch.Tensor, req_to_token: torch.Tensor) -> torch.Tensor:
        """Ids of the first `blocks` blocks of every row, `[batch * heads, blocks]`."""
        per_page = self.page_size // self.block_size
        pages = -(-blocks // per_page)
        first = req_to_token[:, : pages * self.page_size : self.page_size][requests].long()
        each = torch.arange(per_page, device=first.device)
        own = (first // self.page_size * per_page)[:, :, None] + each
        own = own.view(len(first), 1, -1)[:, :, :blocks]
        head = torch.arange(self.heads, device=first.device)[None, :, None]
        return (own * self.heads + head).reshape(-1, blocks)

    def _ids_of(self, slots: torch.Tensor) -> torch.Tensor:
        """Ids of the blocks of all kv heads that these token slots lie in."""
        return self._over_heads(slots // self.block_size).view(-1)

    def _over_heads(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers[:, None] * self.heads + torch.arange(self.heads, device=numbers.device)

    def _rows_of(self, requests: np.ndarray, device: torch.device) -> torch.Tensor:
        return self._over_heads(torch.from_numpy(requests).to(device)).view(-1)


def saved_fields(graph: FlowGraph) -> tuple[str, ...]:
    """Fields of blocks that the indexer saves: a block that is used again starts them from zeros."""
    written = {node.output for node in graph.program(Stage.INDEXER)}
    return tuple(f.name for f in graph.fields if f.format is Format.PAGED and f.name in written)


def summary_bytes(graph: FlowGraph, geometry: Geometry, config: VortexConfig) -> int:
    """Bytes of the fields of one block of one kv head."""
    fields = graph.instantiate(geometry).fields
    numbers = sum(f.rows.hint * f.cols.hint for f in fields if f.format is Format.PAGED)
    return numbers * TORCH_DTYPES[config.dtype].itemsize


def check_block_size(config: VortexConfig, page_size: int) -> int:
    """The config's block size, by default a page. Raises ConfigError where it does not divide the page."""
    block = config.block_size or page_size
    if page_size % block or block & (block - 1):
        raise ConfigError(f"block_size={block} must be a power of 2 that divides page_size={page_size}")
    return block
