"""The `reference` target run as separate kernels that share nothing but memory, every access counted.

A kernel sees only what it has read, reads a value once, and writes when it is done. Whatever the cut into
kernels forgets or orders wrongly is a KeyError or a wrong score.
"""

from __future__ import annotations

from collections import Counter

import torch

from vortex.config import Dtype
from vortex.graph.fusion import Kernel, Kind, cut
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Ref, RefKind
from vortex.ops import Row
from vortex.runtime.dtypes import itemsize, rounded
from vortex.runtime.plan import SparseRows
from vortex.runtime.table import BlockTable
from vortex.targets.base import LayerCache
from vortex.targets.reference import ReferenceProgram
from vortex.weights import Weight


class CountingProgram(ReferenceProgram):
    """Scores the blocks of [bos, n - eos) and touches no others.

    `counted[part, way]` are bytes by part of Cost; way is "read" or "written".
    """

    def __init__(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype, kv_itemsize: int) -> None:
        super().__init__(graph, geometry, dtype)
        self.kernels = cut(self.graph)
        self.kv_itemsize = kv_itemsize
        self.counted: Counter[tuple[str, str]] = Counter()
        (select,) = (kernel for kernel in self.kernels.scoring if kernel.kind is Kind.SELECT)
        makers = {self.graph.indexer[index].inputs[0]: index for index in select.nodes}
        self.picks = [self.kernels.operands[makers[pick.score]][0] for pick in self.selections]
        """What each selection selects by."""

    def count(self, part: str, way: str, tensor: torch.Tensor, field: str = "") -> torch.Tensor:
        size = self.kv_itemsize if field in ("k", "v", "latent") else itemsize(self.dtype)
        self.counted[part, way] += tensor.numel() * size
        return tensor

    def summarize(self, layer: LayerCache, blocks: slice | torch.Tensor) -> None:
        kernel = self.kernels.summary
        if kernel is None:
            return
        # Other fields than the engine's are zeros to the cache program, and not read.
        held = {Ref.field(name): torch.zeros(1, *shape) for name, shape in self.fields.items()}
        for ref in kernel.inputs:
            stored = self.field(layer, ref.name)[blocks].float()
            held[ref] = self.count("summaries", "read", stored, ref.name)
        for index in kernel.nodes:
            step = self.cache[index]
            inputs = tuple(held[ref] for ref in step.node.inputs)
            held[Ref.at(index)] = step.op.reference(step.args, inputs, Row(1))
        for index in kernel.nodes:
            name = self.cache[index].node.output
            if name is not None:
                target = layer.fields[name]
                value = held[Ref.at(index)].expand_as(target[blocks])
                target[blocks] = rounded(self.count("summaries", "written", value), self.dtype)

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockTable, rows: SparseRows) -> torch.Tensor:
        out = torch.zeros((len(self.selections), len(rows), rows.blocks))
        loaded: set[tuple[Kernel, Ref]] = set()
        for index in range(len(rows)):
            span = Row(int(rows.host_n[index]), rows.bos, rows.eos).span
            owner = rows.owners[index : index + 1]
            memory = Memory(self, q[index][None], layer, table.ids[index][span], owner, loaded)
            for kernel in self.kernels.scoring:
                memory.run(kernel)
            for place, ref in enumerate(self.picks):
                out[place, index, span] = memory.results[ref][:, 0, 0]
        return out


class Memory:
    """What the kernels of one row share. `loaded`: the constants that a kernel has read for any row."""

    def __init__(
        self,
        program: CountingProgram,
        q: torch.Tensor,
        layer: LayerCache,
        blocks: torch.Tensor,
        owner: torch.Tensor,
        loaded: set[tuple[Kernel, Ref]],
    ) -> None:
        self.program, self.q, self.layer, self.blocks, self.owner = program, q, layer, blocks, owner
        self.loaded = loaded
        self.results: dict[Ref, torch.Tensor] = {}

    def run(self, kernel: Kernel) -> None:
        part = "selection" if kernel.kind is Kind.SELECT else "scores"
        held = {ref: self.read(kernel, part, ref) for ref in kernel.inputs}
        used = {ref for index in kernel.nodes for ref in self.program.kernels.operands[index]}
        assert used >= set(held), "a kernel reads what none of its ops needs"
        if kernel.kind is Kind.SELECT:
            return
        for index in kernel.nodes:
            step = self.program.indexer[index]
            self.read_weights(kernel, index)
            inputs = tuple(held[ref] for ref in self.program.kernels.operands[index])
            args = step.at_layer(self.layer.index)
            held[Ref.at(index)] = step.op.reference(args, inputs, Row(len(self.blocks)))
        for index in kernel.results:
            self.write(index, held[Ref.at(index)])
        for index in kernel.nodes:
            name = self.program.graph.indexer[index].output
            if name is not None:
                self.save(name, held[Ref.at(index)])

    def read(self, kernel: Kernel, part: str, ref: Ref) -> torch.Tensor:
        program = self.program
        if ref.kind is RefKind.QUERY:
            return program.count("row_values", "read", self.q.float())
        if ref.name in program.request_fields:
            return program.count(part, "read", self.layer.requests[ref.name][self.owner])
        if ref.kind is RefKind.FIELD:
            stored = program.field(self.layer, ref.name)[self.blocks].float()
            return program.count(part, "read", stored, ref.name)
        step = program.indexer[ref.node]
        if step.op.constant:
            return self.constant(kernel, ref, step.op.reference(step.at_layer(self.layer.index), (), Row(0)))
        per_row = step.node.type.format is Format.BATCHED
        return program.count("row_values" if per_row else part, "read", self.results[ref])

    def write(self, index: int, value: torch.Tensor) -> None:
        per_row = self.program.graph.indexer[index].type.format is Format.BATCHED
        part = "row_values" if per_row else "selection" if Ref.at(index) in self.program.picks else "scores"
        self.results[Ref.at(index)] = self.program.count(part, "written", value)

    def save(self, name: str, value: torch.Tensor) -> None:
        stored = rounded(self.program.count("scores", "written", value), self.program.dtype)
        if name in self.program.request_fields:
            self.layer.requests[name][self.owner] = stored
        else:
            self.layer.fields[name][self.blocks] = stored

    def read_weights(self, kernel: Kernel, index: int) -> None:
        """The weights that an op brings along, those of this layer."""
        step = self.program.indexer[index]
        for name, weight in step.node.attrs:
            if isinstance(weight, Weight):
                value = weight.torch()
                self.constant(
                    kernel, Ref(RefKind.NODE, name, index), value[0] if step.op.per_layer else value
                )

    def constant(self, kernel: Kernel, ref: Ref, value: torch.Tensor) -> torch.Tensor:
        """Float32, read once for all rows of the layer."""
        if (kernel, ref) not in self.loaded:
            self.program.counted["scores", "read"] += value.numel() * 4
            self.loaded.add((kernel, ref))
        return value
