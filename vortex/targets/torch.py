"""The `torch` target: vectorised over ragged rows, on the CPU or a GPU."""

from __future__ import annotations

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.attention import Workspace, dense_attention, sparse_attention
from vortex.runtime.plan import SparseRows
from vortex.runtime.pool import KVPool, PageTable
from vortex.runtime.select import top_blocks
from vortex.targets.base import Program


class TorchTarget:
    """See `vortex.targets.base.Target`."""

    name = "torch"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        raise NotImplementedError

    def select(self, scores: torch.Tensor, rows: SparseRows) -> torch.Tensor:
        return top_blocks(scores, rows.valid, rows.most)

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
        return sparse_attention(q, pool, blocks, rows, block_size, scale, work)

    def attend_dense(
        self, q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
    ) -> torch.Tensor:
        return dense_attention(q, pool, pages, seq_len, heads, scale)
