"""One batch of requests while it is decoded: the step that every engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vortex.budget import parse_policy
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.graph.model import FlowGraph
from vortex.runtime.attention import Workspace
from vortex.runtime.batch import DeviceBatch
from vortex.runtime.default_target import default_target
from vortex.runtime.hooks import Hooks, ScoreInput
from vortex.runtime.plan import SparseRows, dense_plan, make_plan
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.select import choose_blocks
from vortex.runtime.summaries import Summaries
from vortex.runtime.table import BlockTable
from vortex.targets import LayerCache, Program, Target, get_target


@dataclass(frozen=True)
class Step:
    """What the layers of one decode step share."""

    number: int
    slots: torch.Tensor
    rows: SparseRows | None
    table: BlockTable | None
    row_ids: np.ndarray
    dense_requests: np.ndarray
    finished: Sequence[slice | torch.Tensor]


def runs_on_device(target: str, device: torch.device, hooks: Hooks) -> bool:
    """Whether sparse layers run as the kernels of a step: without looking into it, on a GPU."""
    return target == "triton" and device.type == "cuda" and hooks == Hooks()


class DecodeSession:
    """Decodes a batch through a graph, or densely where `graph` is None and no hook scores blocks.

    `pages` has one row per request x kv head (row = request * heads + head); `lengths [requests]` tokens
    are already in the pools. Every step: `begin_step()`, then `attend` once per layer in any order. `target`:
    by default the one for the pools' device.
    """

    def __init__(
        self,
        pools: Sequence[KVPool],
        pages: PageTable,
        lengths: np.ndarray,
        group: int,
        graph: FlowGraph | None,
        config: VortexConfig,
        target: str | None = None,
        hooks: Hooks | None = None,
        growable: bool = False,
    ) -> None:
        self.hooks = hooks or Hooks()
        self.config = config
        self.device = pools[0].k.device
        self.target: Target = get_target(target or default_target(self.device.type))
        self.lengths = lengths.astype(np.int64)
        self.heads = pages.rows // len(lengths)
        self.block_size = config.block_size or 16
        if PAGE % self.block_size:
            raise ConfigError(f"block_size={self.block_size} must divide the page of {PAGE} tokens")
        self.geometry = pools[0].geometry(self.block_size, group)
        self.policy = None if config.schedule_policy is None else parse_policy(config.schedule_policy)
        self.program: Program | None = None
        self.quotas: tuple[int | None, ...] = (None,)
        """Blocks that each selection chooses; None: as many as the plan says."""
        self.on_device: DeviceBatch | None = None
        """Runs the sparse layers, where it is there."""
        if graph is not None and not runs_on_device(self.target.name, self.device, self.hooks):
            self.program = self.target.program(graph, self.geometry, config.dtype)
            self.quotas = tuple(selection.k for selection in self.program.selections)
        self.is_sparse = graph is not None or self.hooks.scores is not None
        self.layers = [LayerCache(i, pool) for i, pool in enumerate(pools)]
        self.sparse_layers = self._sparse_layers(len(pools))
        self.requests = np.arange(len(lengths))
        self.growable = growable
        self.summaries = Summaries(
            self.program, [self.layers[i] for i in sorted(self.sparse_layers)], len(lengths), self.heads
        )
        self.work = Workspace()
        self.steps = 0
        self.step: Step | None = None
        self._set_pages(pages)
        if graph is not None and self.program is None and self.sparse_layers:
            sparse = {i: self.layers[i] for i in self.sparse_layers}
            self.on_device = DeviceBatch(
                graph, self.geometry, config, sparse, pages, self.lengths, self.device
            )

    def begin_step(self) -> None:
        """Make room for one more token of every request and plan the step."""
        self._make_room()
        self.lengths = self.lengths + 1
        if self.on_device is not None:
            self.on_device.begin()
            plan = dense_plan(self.lengths, self.block_size)
        elif self.is_sparse and self.sparse_layers:
            plan = make_plan(self.lengths, self.block_size, self.config, self.policy)
        else:
            plan = dense_plan(self.lengths, self.block_size)
        positions = np.repeat(self.lengths - 1, self.heads)
        slots = torch.from_numpy(self.pages.slots(positions)).to(self.device)
        sparse = np.flatnonzero(plan.sparse)
        rows = table = None
        row_ids = self._rows_of(sparse)
        finished: Sequence[slice | torch.Tensor] = ()
        if len(sparse):
            rows = SparseRows(plan, self.heads, self.block_size, self.config, self.device, self.requests)
            table = self._table_of(sparse, row_ids)
            finished = self.summaries.due(table, sparse, self.lengths // self.block_size)
        dense = np.flatnonzero(~plan.sparse)
        self.step = Step(self.steps, slots, rows, table, row_ids, dense, finished)
        self.steps += 1

    def attend(
        self, layer_id: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """Store the new token's `k`, `v [requests, heads, head_dim]` and attend with `q [requests, heads *
        group, head_dim]`: `[requests, heads * group, value_dim]`. MLA: `k` is the latent, `v` None.
        """
        step = self.step
        if step is None:
            raise ConfigError("attend() before begin_step(): plan the step first")
        layer = self.layers[layer_id]
        dim = q.shape[-1]
        layer.pool.write(step.slots, *(part.reshape(-1, dim) for part in (k, v) if part is not None))
        if self.on_device is not None and layer_id in self.sparse_layers:
            return self.on_device.attend(layer_id, q, scale)
        rows = q.reshape(-1, self.geometry.group, dim)
        if step.rows is None or layer_id not in self.sparse_layers:
            every = np.arange(len(self.lengths))
            return self._dense(layer, rows, every, scale).view(*q.shape[:2], -1)
        self.summaries.update(layer, step.finished)
        if len(step.dense_requests) == 0:
            return self._sparse(layer, rows, step, scale).view(*q.shape[:2], -1)
        out = rows.new_empty((*rows.shape[:2], layer.pool.value_dim))
        sparse_ids = torch.from_numpy(step.row_ids).to(self.device)
        dense_ids = torch.from_numpy(self._rows_of(step.dense_requests)).to(self.device)
        out[sparse_ids] = self._sparse(layer, rows[sparse_ids], step, scale)
        out[dense_ids] = self._dense(layer, rows[dense_ids], step.dense_requests, scale)
        return out.view(*q.shape[:2], -1)

    def keep(self, alive: np.ndarray) -> None:
        """Go on with the requests at these places of the current batch only."""
        self.lengths = self.lengths[alive]
        self.requests = self.requests[alive]
        self.summaries.keep(alive)
        self._set_pages(self.pages.select(self._rows_of(alive)))
        if self.on_device is not None:
            self.on_device.keep(self.requests, self.lengths)
        self.step = None

    def _sparse(self, layer: LayerCache, q: torch.Tensor, step: Step, scale: float) -> torch.Tensor:
        rows, table = step.rows, step.table
        assert rows is not None
        assert table is not None
        requests = np.repeat(self.requests[rows.requests], self.heads)
        given = ScoreInput(step.number, layer, q, table, rows, requests)
        if self.hooks.scores is not None:
            scores = self.hooks.scores(given)[None]
        else:
            assert self.program is not None
            scores = self.program.scores(q, layer, table, rows)
        if self.hooks.noise is not None:
            scores = torch.stack([self.hooks.noise(given, score) for score in scores])
        listed = choose_blocks(self.target, scores, rows, self.quotas, self.config.dtype)
        if self.hooks.selected is not None:
            self.hooks.selected(given, listed.positions)
        blocks = table.ids.gather(1, listed.positions)
        return self.target.attend(q, layer.pool, blocks, listed, self.block_size, scale, self.work)

    def _dense(self, layer: LayerCache, q: torch.Tensor, requests: np.ndarray, scale: float) -> torch.Tensor:
        pages = self.pages
        if len(requests) < len(self.lengths):
            pages = pages.select(self._rows_of(requests))
        seq_len = np.repeat(self.lengths[requests], self.heads)
        return self.target.attend_dense(q, layer.pool, pages, seq_len, self.heads, scale)

    def _sparse_layers(self, layers: int) -> frozenset[int]:
        skipped = set(self.config.layers_skip or ())
        if skipped and max(skipped) >= layers:
            raise ConfigError(
                f"layers_skip names layer {max(skipped)}, but the model has layers 0 to {layers - 1}"
            )
        return frozenset(set(range(layers)) - skipped) if self.is_sparse else frozenset()

    def _rows_of(self, requests: np.ndarray) -> np.ndarray:
        return (requests[:, None] * self.heads + np.arange(self.heads)).reshape(-1)

    def _set_pages(self, pages: PageTable) -> None:
        self.pages = pages
        self._tables: dict[bytes, BlockTable] = {}
        if self.on_device is not None:
            self.on_device.set_pages(pages)

    def _table_of(self, sparse: np.ndarray, row_ids: np.ndarray) -> BlockTable:
        key = sparse.tobytes()
        if key not in self._tables:
            self._tables = {key: BlockTable(self.pages.select(row_ids), self.block_size, self.device)}
        return self._tables[key]

    def _make_room(self) -> None:
        short = np.flatnonzero(np.repeat(self.lengths, self.heads) >= self.pages.counts * PAGE)
        if len(short) == 0:
            return
        if not self.growable:
            raise ConfigError(
                f"no room for token {int(self.lengths.max()) + 1}: build the cache with more room"
            )
        used = int(self.pages.pages.max()) + 1
        fresh = np.arange(used, used + len(short))
        for layer in self.layers:
            layer.pool.grow(used + len(short))
        self.summaries.grow()
        self._set_pages(self.pages.append(short, fresh))
