"""The `torch` target: vectorised over ragged rows, on the CPU or a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Ref, RefKind
from vortex.runtime.attention import Workspace, dense_attention, sparse_attention
from vortex.runtime.dtypes import rounded
from vortex.runtime.plan import BlockList, Quota, SparseRows
from vortex.runtime.pool import KVPool, PageTable
from vortex.runtime.select import top_blocks
from vortex.runtime.table import BlockIds
from vortex.targets.base import LayerCache, Program
from vortex.targets.compiled import CompiledGraph
from vortex.targets.rewrite import bound_as_products

CHUNK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Size of the largest intermediate of a group of rows. On a CPU it stays in its cache between ops; a GPU is
only kept from running out of memory."""


class TorchProgram(CompiledGraph):
    """See `vortex.targets.base.Program`. Rows are padded to `[rows, blocks, r, c]`; BATCHED is `[rows, 1,
    r, c]`.
    """

    def rewritten(self, graph: FlowGraph) -> FlowGraph:
        # Summaries that overflow a narrow format are infinite, and 0 * inf is not what the bound says.
        return graph if self.dtype == "float16" else bound_as_products(graph)

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockIds, rows: SparseRows) -> torch.Tensor:
        count = len(rows)
        out = torch.empty((len(self.selections), count, rows.blocks), device=q.device)
        chunk = max(1, CHUNK_BYTES[q.device.type] // (4 * self.widest * rows.blocks))
        for first in range(0, count, chunk):
            last = min(count, first + chunk)
            blocks = int(rows.host_n[first:last].max())
            valid, ids = rows.valid[first:last, :blocks], table.ids[first:last, :blocks]
            part = _Part(first, last, blocks, valid, ids, rows)
            self._part(q[first:last, None], layer, table, part, out[:, first:last, :blocks])
        return out

    def _part(
        self, q: torch.Tensor, layer: LayerCache, table: BlockIds, part: _Part, out: torch.Tensor
    ) -> None:
        """Scores of some rows into `out [selections, rows, blocks]`; saves what the flow saves."""
        done: dict[int, torch.Tensor] = {}

        def operand(ref: Ref) -> torch.Tensor:
            if ref.kind is RefKind.NODE:
                return done[ref.node]
            if ref.kind is RefKind.QUERY:
                return q.float()
            if ref.name in self.request_fields:
                return layer.requests[ref.name][part.owners][:, None]
            return table.read(self.field(layer, ref.name), part.first, part.last, part.blocks).float()

        for step in self.live:
            inputs = tuple(operand(ref) for ref in step.node.inputs)
            done[step.index] = step.op.run(step.at_layer(layer.index), inputs, part.valid)
        for at, pick in enumerate(self.selections):
            out[at] = operand(pick.score)[..., 0, 0]
        # Results may be views of fields: all that is saved is copied before anything is written.
        saved = [(name, format, part.saved(done[step.index], format)) for step, name, format in self.saves()]
        for name, format, value in saved:
            if format is Format.SLOTTED:
                layer.requests[name][part.owners] = rounded(value, self.dtype)
            else:
                field = layer.fields[name]
                field[part.ids.reshape(-1)[part.scored]] = rounded(value, self.dtype).to(field.dtype)


@dataclass(frozen=True)
class _Part:
    """Rows `first` to `last - 1` of `rows`, that are scored together over the `blocks` of the longest of
    them: which ones are scored and their ids `[rows, blocks]`."""

    first: int
    last: int
    blocks: int
    valid: torch.Tensor
    ids: torch.Tensor
    rows: SparseRows

    @property
    def owners(self) -> torch.Tensor:
        """The rows' places in the request fields."""
        return self.rows.owners[self.first : self.last]

    @property
    def scored(self) -> torch.Tensor:
        """Where `valid`, flattened, is true."""
        return self.rows.scored(self.first, self.last, self.blocks)

    def saved(self, value: torch.Tensor, format: Format) -> torch.Tensor:
        """What a Save writes: a copy of the scored blocks `[scored, r, c]`, or the rows `[rows, r, c]`."""
        if format is Format.SLOTTED:
            return value[:, 0].clone()
        return value.expand(*self.ids.shape, -1, -1).flatten(0, 1)[self.scored]


class TorchTarget:
    """See `vortex.targets.base.Target`."""

    name = "torch"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        return TorchProgram(graph, geometry, dtype)

    def select(self, scores: torch.Tensor, rows: SparseRows, quota: Quota) -> torch.Tensor:
        return top_blocks(scores, rows.valid, quota.most)

    def attend(
        self,
        q: torch.Tensor,
        pool: KVPool,
        blocks: torch.Tensor,
        listed: BlockList,
        block_size: int,
        scale: float,
        work: Workspace,
    ) -> torch.Tensor:
        return sparse_attention(q, pool, blocks, listed, block_size, scale, work)

    def attend_dense(
        self, q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
    ) -> torch.Tensor:
        return dense_attention(q, pool, pages, seq_len, heads, scale)
