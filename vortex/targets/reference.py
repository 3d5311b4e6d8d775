"""The `reference` target: float32, one row at a time, written to be read. The definition of right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Ref, RefKind
from vortex.ops import Row
from vortex.ops.selection import top
from vortex.runtime.attention import Workspace
from vortex.runtime.dtypes import rounded
from vortex.runtime.plan import BlockList, Quota, SparseRows
from vortex.runtime.pool import PAGE, KVPool, PageTable, take
from vortex.runtime.table import BlockIds
from vortex.targets.base import LayerCache, Program
from vortex.targets.compiled import CompiledGraph


class ReferenceProgram(CompiledGraph):
    """See `vortex.targets.base.Program`. A row is `[blocks, r, c]`; BATCHED is `[1, r, c]`."""

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockIds, rows: SparseRows) -> torch.Tensor:
        out = torch.zeros((len(self.selections), len(rows), rows.blocks))
        for index in range(len(rows)):
            row = _row(rows, index)
            place = _Place(q[index][None], layer, table.ids[index, : row.blocks], rows.owners[index])
            for at, score in enumerate(self._score(place, row)):
                out[at, index, : row.blocks] = score[:, 0, 0]
        return out.to(q.device)

    def _score(self, place: _Place, row: Row) -> list[torch.Tensor]:
        """The score of each selection for one row, `[blocks, 1, 1]`; saves what the flow saves."""
        layer = place.layer
        done: dict[int, torch.Tensor] = {}

        def operand(ref: Ref) -> torch.Tensor:
            if ref.kind is RefKind.NODE:
                return done[ref.node]
            if ref.kind is RefKind.QUERY:
                return place.q.float()
            if ref.name in self.request_fields:
                return layer.requests[ref.name][place.owner][None].clone()
            return take(self.field(layer, ref.name), place.blocks).float()

        for step in self.live:
            inputs = tuple(operand(ref) for ref in step.node.inputs)
            done[step.index] = step.op.reference(step.at_layer(layer.index), inputs, row)
        scores = [operand(pick.score) for pick in self.selections]
        for step, name, format in self.saves():
            value = rounded(done[step.index], self.dtype)
            if format is Format.SLOTTED:
                layer.requests[name][place.owner] = value[0]
            else:
                field = layer.fields[name]
                field[place.blocks[row.span]] = value[row.span].to(field.dtype)
        return scores


@dataclass(frozen=True)
class _Place:
    """Where one row's values are: its query `[1, group, head_dim]`, block ids, and place in the request
    fields."""

    q: torch.Tensor
    layer: LayerCache
    blocks: torch.Tensor
    owner: torch.Tensor


class ReferenceTarget:
    """See `vortex.targets.base.Target`."""

    name = "reference"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        return ReferenceProgram(graph, geometry, dtype)

    def select(self, scores: torch.Tensor, rows: SparseRows, quota: Quota) -> torch.Tensor:
        out = torch.zeros((len(rows), quota.most), dtype=torch.int64)
        for index in range(len(rows)):
            row = _row(rows, index, int(quota.host_k[index]))
            best = top(scores[index, : row.blocks, None, None], row)
            out[index, : len(best)] = best
        return out.to(scores.device)

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
        k, v = pool.blocks(block_size)
        out = q.new_empty((*q.shape[:2], pool.value_dim))
        for row in range(len(blocks)):
            tokens = int(listed.host_tokens[row])
            own = blocks[row, : -(-tokens // block_size)]
            keys, values = (take(x, own).flatten(0, 1)[:tokens].float() for x in (k, v))
            out[row] = _attention(q[row], keys, values, scale)
        return out

    def attend_dense(
        self, q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
    ) -> torch.Tensor:
        out = q.new_empty((*q.shape[:2], pool.value_dim))
        for row, length in enumerate(seq_len):
            own = torch.from_numpy(pages.pages[row, : pages.counts[row]])
            keys, values = (x[own].flatten(0, 1)[:length].float() for x in pool.blocks(PAGE))
            out[row] = _attention(q[row], keys, values, scale)
        return out


def _row(rows: SparseRows, index: int, k: int = 0) -> Row:
    return Row(int(rows.host_n[index]), rows.bos, rows.eos, k)


def _attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """`q [group, head_dim]` over `keys [tokens, head_dim]` and `values [tokens, value_dim]`."""
    weights = torch.softmax(q.float() @ keys.T * scale, dim=-1)
    return (weights @ values).to(q.dtype)
