"""Adds up what the kernels of a graph move and compute."""

from __future__ import annotations

from collections import defaultdict

from vortex.graph.fusion import Kernel, Kernels, Kind
from vortex.graph.limits import node_flops
from vortex.graph.model import Format, Node, Ref, Stage
from vortex.graph.work import Work
from vortex.ops import find_op
from vortex.weights import Weight

WEIGHT_ITEMSIZE = 4


class Tally:
    """What the kernels move and compute, by part of Cost: `step` for a row, `block` for a scored block."""

    def __init__(self, kernels: Kernels, kv_itemsize: int, field_itemsize: int, sharing: int) -> None:
        self.graph = kernels.graph
        self.kv = {stored.name for stored in self.graph.injected}
        self.kv_itemsize, self.field_itemsize, self.sharing = kv_itemsize, field_itemsize, sharing
        self.step: dict[str, Work] = defaultdict(Work)
        self.block: dict[str, Work] = defaultdict(Work)
        if kernels.summary is not None:
            self._summarise(kernels.summary)
        selecting = [kernel for kernel in kernels.scoring if kernel.kind is Kind.SELECT]
        self.scores = {ref.node for kernel in selecting for ref in kernel.inputs}
        for kernel in kernels.scoring:
            self._score(kernel)

    def _summarise(self, kernel: Kernel) -> None:
        read = sum(self._size(ref) for ref in kernel.inputs)
        written = sum(self._size(Ref.field(name)) for name in kernel.fields)
        flops = sum(node_flops(self.graph, Stage.CACHE, node) for node in self.graph.cache)
        self.step["summaries"] += Work(read, written, flops) * (1 / self.graph.traced_at.block_size)

    def _score(self, kernel: Kernel) -> None:
        part = "selection" if kernel.kind is Kind.SELECT else "scores"
        for ref in kernel.inputs:
            self._move(part, ref, written=False)
        for index in kernel.results:
            self._move("selection" if index in self.scores else part, Ref.at(index), written=True)
        for name in kernel.fields:
            self._move(part, Ref.field(name), written=True)
        for node in (self.graph.indexer[index] for index in kernel.nodes):
            once = kernel.kind is Kind.ROW or find_op(Stage.INDEXER, node.op).takes_selections
            unit = self.step if once else self.block
            unit[part] += Work(flops=node_flops(self.graph, Stage.INDEXER, node))
            self.step[part] += Work(bytes_read=_weights(node) * WEIGHT_ITEMSIZE / self.sharing)

    def _move(self, part: str, ref: Ref, written: bool) -> None:
        """Adds one entry of what `ref` names."""
        size = self._size(ref)
        work = Work(bytes_written=size) if written else Work(bytes_read=size)
        found = self.graph.type_of(Stage.INDEXER, ref)
        if found.has_blocks:
            self.block[part] += work
        else:
            self.step["row_values" if found.format is Format.BATCHED else part] += work

    def _size(self, ref: Ref) -> float:
        """Bytes of one entry, as one row pays for them."""
        found = self.graph.type_of(Stage.INDEXER, ref)
        if found.format is Format.PARAMETER:
            return found.numel * WEIGHT_ITEMSIZE / self.sharing
        return found.numel * (self.kv_itemsize if ref.name in self.kv else self.field_itemsize)


def _weights(node: Node) -> int:
    """Numbers that the op reads besides its operands, in one layer that has its row of them."""
    weights = [value for _, value in node.attrs if isinstance(value, Weight)]
    per_layer = find_op(Stage.INDEXER, node.op).per_layer
    return sum(weight.numel // (weight.shape[0] if per_layer else 1) for weight in weights)
