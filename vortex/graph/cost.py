"""What one row costs in one decode step: bytes moved and operations, from the graph alone.

The model counts memory traffic once per kernel. Lane-wise ops fuse; an op over blocks is a kernel of its own,
so what crosses it is written and read. The same model prices every candidate and the dense baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vortex.graph.geometry import Geometry
from vortex.graph.limits import node_flops
from vortex.graph.model import FlowGraph, Format, Node, RefKind, Stage
from vortex.ops import Args, find_op

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Cost:
    """Bytes per decode step of one row (request x kv head), by purpose, and floating-point operations.

    summaries: the finished block read and its fields written, spread over the tokens of a block.
    scores: what the indexer reads and passes between kernels. selection: the score written and read.
    attention: keys and values of the blocks attended to.
    """

    summaries: float
    scores: float
    selection: float
    attention: float
    flops: float

    @property
    def bytes(self) -> float:
        return self.summaries + self.scores + self.selection + self.attention


@dataclass(frozen=True)
class RowCosts:
    """The cost of any row of one graph at one geometry, as coefficients.

    summary_bytes, summary_flops: per token. block_bytes, block_flops, score_bytes: per scored block.
    row_flops: per row. token_bytes, token_flops: per token attended to.
    """

    block_size: int
    token_bytes: float
    token_flops: float
    summary_bytes: float = 0.0
    summary_flops: float = 0.0
    block_bytes: float = 0.0
    block_flops: float = 0.0
    score_bytes: float = 0.0
    row_flops: float = 0.0
    sparse: bool = False

    def row(self, seq_len: int, chosen: int, bos: int = 1, eos: int = 1) -> Cost:
        """The cost of a row of `seq_len` tokens (the current one included) of which `chosen` blocks are
        attended to. A row that keeps all its blocks is dense: it is not scored, and costs its keys and
        values."""
        n = -(-seq_len // self.block_size)
        if not self.sparse or chosen >= n:
            return Cost(0.0, 0.0, 0.0, self.token_bytes * seq_len, self.token_flops * seq_len)
        scored = max(0, n - bos - eos)
        tokens = seq_len - (n - chosen) * self.block_size  # the last block is always kept
        flops = self.summary_flops + self.row_flops + self.block_flops * scored + self.token_flops * tokens
        return Cost(
            summaries=self.summary_bytes,
            scores=self.block_bytes * scored,
            selection=self.score_bytes * scored,
            attention=self.token_bytes * tokens,
            flops=flops,
        )

    def bytes(
        self, seq_len: NDArray[np.int64], chosen: NDArray[np.int64], bos: int = 1, eos: int = 1
    ) -> NDArray[np.float64]:
        """`row(...).bytes` for arrays of rows."""
        import numpy as np

        n = -(-seq_len // self.block_size)
        scored = np.maximum(0, n - bos - eos)
        tokens = seq_len - (n - chosen) * self.block_size
        sparse = (
            self.summary_bytes + (self.block_bytes + self.score_bytes) * scored + self.token_bytes * tokens
        )
        dense = self.token_bytes * seq_len.astype(np.float64)
        return np.where((chosen < n) & self.sparse, sparse, dense)


@lru_cache(maxsize=4096)
def row_costs(
    graph: FlowGraph | None, geometry: Geometry, kv_itemsize: int = 2, field_itemsize: int = 2
) -> RowCosts:
    """The coefficients of `graph` (None: dense attention). Raises GuardError or GraphError where the graph
    does not serve the geometry."""
    latent = geometry.kv_lora_rank  # a latent is read once: its value is a part of it
    token_bytes = geometry.head_dim * kv_itemsize * (1 if latent else 2)
    token_flops = 2.0 * geometry.group * (geometry.head_dim + (latent or geometry.head_dim))
    if graph is None:
        return RowCosts(geometry.block_size, token_bytes, token_flops)
    at = graph.instantiate(geometry)
    program = _Indexer(at)
    flops = {True: 0.0, False: 0.0}
    for node in at.indexer:
        flops[_once_a_row(at, node)] += node_flops(at, Stage.INDEXER, node)
    return RowCosts(
        block_size=geometry.block_size,
        token_bytes=token_bytes,
        token_flops=token_flops,
        summary_bytes=_summary_bytes(at, kv_itemsize, field_itemsize) / geometry.block_size,
        summary_flops=sum(node_flops(at, Stage.CACHE, node) for node in at.cache) / geometry.block_size,
        block_bytes=program.read_bytes(kv_itemsize, field_itemsize) + program.passed * field_itemsize,
        block_flops=flops[False],
        score_bytes=2.0 * field_itemsize,
        row_flops=flops[True],
        sparse=True,
    )


def row_cost(
    graph: FlowGraph | None,
    geometry: Geometry,
    seq_len: int,
    chosen: int,
    kv_itemsize: int = 2,
    field_itemsize: int = 2,
    bos: int = 1,
    eos: int = 1,
) -> Cost:
    """The cost of one row; see `RowCosts.row`."""
    return row_costs(graph, geometry, kv_itemsize, field_itemsize).row(seq_len, chosen, bos, eos)


def _once_a_row(graph: FlowGraph, node: Node) -> bool:
    types = [graph.type_of(Stage.INDEXER, ref) for ref in node.inputs]
    return all(found.format in (Format.BATCHED, Format.PARAMETER) for found in types)


def _summary_bytes(graph: FlowGraph, kv_itemsize: int, field_itemsize: int) -> int:
    """Bytes that the cache program moves for one block."""
    engine = {field.name: field for field in graph.injected}
    read = {ref.name for node in graph.cache for ref in node.inputs if ref.kind is RefKind.FIELD}
    written = [graph.field(node.output) for node in graph.cache if node.output is not None]
    return (
        sum(engine[name].type.numel for name in read if name in engine) * kv_itemsize
        + sum(field.type.numel for field in written) * field_itemsize
    )


class _Indexer:
    """The indexer program cut into kernels: lane-wise ops by how many ops over blocks lie before them, and
    each op over blocks alone. `passed`: elements per block that one kernel writes or another reads back."""

    def __init__(self, graph: FlowGraph) -> None:
        self.graph = graph
        self.kernels: list[tuple[int, int]] = []  # of each node: (level, node if alone else -1)
        for index, node in enumerate(graph.indexer):
            level = max((self._level(ref.node) for ref in node.inputs if ref.kind is RefKind.NODE), default=0)
            self.kernels.append((level, index if self._alone(node) else -1))
        self.passed = sum(
            graph.indexer[index].type.numel * (1 + len(readers))
            for index, readers in self._readers().items()
            if readers and graph.indexer[index].type.format is Format.RAGGED
        )

    def _alone(self, node: Node) -> bool:
        return find_op(Stage.INDEXER, node.op).across_blocks(Args(dict(node.attrs)))

    def _level(self, node: int) -> int:
        level, alone = self.kernels[node]
        return level + 1 if alone >= 0 else level

    def _readers(self) -> dict[int, set[tuple[int, int]]]:
        """Node -> the kernels, other than its own, that read its result; the selector's read is priced
        apart."""
        readers: dict[int, set[tuple[int, int]]] = {}
        for index, node in enumerate(self.graph.indexer):
            if find_op(Stage.INDEXER, node.op).claims_output:
                continue
            for ref in node.inputs:
                if ref.kind is RefKind.NODE and self.kernels[ref.node] != self.kernels[index]:
                    readers.setdefault(ref.node, set()).add(self.kernels[index])
        return readers

    def _reads(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for index, node in enumerate(self.graph.indexer):
            for ref in node.inputs:
                if ref.kind is RefKind.FIELD:
                    yield ref.name, self.kernels[index]

    def read_bytes(self, kv_itemsize: int, field_itemsize: int) -> int:
        """Bytes of fields that the kernels read for one block, and write with Save."""
        engine = {field.name for field in self.graph.injected}
        touched = [name for name, _ in set(self._reads())]
        touched += [node.output for node in self.graph.indexer if node.output is not None]
        return sum(
            self.graph.field(name).type.numel * (kv_itemsize if name in engine else field_itemsize)
            for name in touched
        )
