"""The `reference` target: float32, one row at a time, written to be read. The definition of right."""

from __future__ import annotations

import math

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.attention import Workspace
from vortex.runtime.plan import SparseRows
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.targets.base import Program


class ReferenceTarget:
    """See `vortex.targets.base.Target`."""

    name = "reference"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        raise NotImplementedError

    def select(self, scores: torch.Tensor, rows: SparseRows) -> torch.Tensor:
        out = torch.zeros((len(rows), rows.most), dtype=torch.int64)
        for row in range(len(rows)):
            candidates = range(rows.bos, int(rows.host_n[row]) - rows.eos)
            score = scores[row].tolist()

            def rank(block: int, score: list[float] = score) -> tuple[bool, float, int]:
                nan = math.isnan(score[block])
                return nan, 0.0 if nan else -score[block], block

            best = sorted(candidates, key=rank)[: int(rows.host_k[row])]
            out[row, : len(best)] = torch.tensor(best)
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
        out = torch.empty_like(q)
        for row in range(len(rows)):
            tokens = int(rows.host_tokens[row])
            own = blocks[row, : -(-tokens // block_size)]
            keys, values = (x[own].flatten(0, 1)[:tokens].float() for x in (k, v))
            out[row] = _attention(q[row], keys, values, scale)
        return out

    def attend_dense(
        self, q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
    ) -> torch.Tensor:
        out = torch.empty_like(q)
        for row, length in enumerate(seq_len):
            own = torch.from_numpy(pages.pages[row, : pages.counts[row]])
            keys, values = (x.view(-1, PAGE, pool.head_dim)[own].flatten(0, 1)[:length].float() for x in (pool.k, pool.v))
            out[row] = _attention(q[row], keys, values, scale)
        return out


def _attention(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """`q [group, head_dim]` over `[tokens, head_dim]`."""
    weights = torch.softmax(q.float() @ keys.T * scale, dim=-1)
    return (weights @ values).to(q.dtype)
