"""The `reference` target: float32, one row at a time, written to be read. The definition of right."""

from __future__ import annotations

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Ref, RefKind, Stage
from vortex.ops import Args, Row, find_op
from vortex.runtime.attention import Workspace
from vortex.runtime.plan import SparseRows
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.table import BlockTable
from vortex.targets.base import LayerCache, Program
from vortex.targets.compiled import CompiledGraph


class ReferenceProgram(CompiledGraph):
    """See `vortex.targets.base.Program`. A row is `[blocks, r, c]`; BATCHED is `[1, r, c]`."""

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockTable, rows: SparseRows) -> torch.Tensor:
        out = torch.zeros((len(rows), rows.blocks))
        for row in range(len(rows)):
            n = int(rows.host_n[row])
            own = table.ids[row, :n]
            done: dict[int, torch.Tensor] = {}
            for step in self.live:
                inputs = tuple(self._operand(ref, done, q[row][None], layer, own) for ref in step.node.inputs)
                done[step.index] = step.op.reference(step.args, inputs, _row(rows, row))
            out[row, :n] = self._operand(self.score, done, q[row][None], layer, own)[:, 0, 0]
        return out.to(q.device)

    def _operand(
        self, ref: Ref, done: dict[int, torch.Tensor], q: torch.Tensor, layer: LayerCache, own: torch.Tensor
    ) -> torch.Tensor:
        if ref.kind is RefKind.NODE:
            return done[ref.node]
        return q.float() if ref.kind is RefKind.QUERY else self.field(layer, ref.name)[own].float()


class ReferenceTarget:
    """See `vortex.targets.base.Target`."""

    name = "reference"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        return ReferenceProgram(graph, geometry, dtype)

    def select(self, scores: torch.Tensor, rows: SparseRows) -> torch.Tensor:
        out = torch.zeros((len(rows), rows.most), dtype=torch.int64)
        top = find_op(Stage.INDEXER, "topK")
        for row in range(len(rows)):
            best = top.reference(Args({}), (scores[row, : rows.host_n[row], None, None],), _row(rows, row))
            out[row, : len(best)] = best
        return out.to(scores.device)

    def attend(
        self,
        q: torch.Tensor,
        pool: KVPool,
        blocks: torch.Tensor,
        rows: SparseRows,
        block_size: int,
        scale: float,
        work: Workspace,
    ) -> torch.Tensor:
        k, v = pool.blocks(block_size)
        out = q.new_empty((*q.shape[:2], pool.value_dim))
        for row in range(len(rows)):
            tokens = int(rows.host_tokens[row])
            own = blocks[row, : -(-tokens // block_size)]
            keys, values = (x[own].flatten(0, 1)[:tokens].float() for x in (k, v))
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


def _row(rows: SparseRows, row: int) -> Row:
    return Row(int(rows.host_n[row]), rows.bos, rows.eos, int(rows.host_k[row]))


def _attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """`q [group, head_dim]` over `keys [tokens, head_dim]` and `values [tokens, value_dim]`."""
    weights = torch.softmax(q.float() @ keys.T * scale, dim=-1)
    return (weights @ values).to(q.dtype)
