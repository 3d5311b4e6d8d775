"""A graph with numbers for its symbols and its op definitions looked up: where the torch-based targets
start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vortex.config import Dtype
from vortex.dims import Dim
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, FlowGraph, Format, Node, Ref, RefKind, Stage
from vortex.ops import Args, OpDef, find_op
from vortex.runtime.dtypes import rounded
from vortex.runtime.fields import field_shapes
from vortex.runtime.pool import take
from vortex.targets.base import LayerCache


@dataclass(frozen=True)
class Instruction:
    """One node of a program, at `index`, with what its semantics need."""

    index: int
    node: Node
    op: OpDef
    args: Args

    def at_layer(self, layer: int) -> Args:
        return self.args.at_layer(layer) if self.op.per_layer else self.args


class CompiledGraph:
    """The canonical graph at one geometry."""

    def __init__(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> None:
        self.geometry, self.dtype = geometry, dtype
        self.graph = self.rewritten(graph.instantiate(geometry))
        self.fields = field_shapes(self.graph, Format.PAGED)
        self.request_fields = field_shapes(self.graph, Format.SLOTTED)
        self.cache = _instructions(Stage.CACHE, self.graph.cache)
        self.indexer = _instructions(Stage.INDEXER, self.graph.indexer)
        self.selections = self.graph.selections
        self.live = self._live()
        self.widest = max(self._widths())
        """Elements per block of the largest tensor that the indexer touches."""

    def rewritten(self, graph: FlowGraph) -> FlowGraph:
        """A hook for targets: an equal graph that they run faster."""
        return graph

    def _live(self) -> tuple[Instruction, ...]:
        """The indexer's instructions that a score or a side effect needs, in order; those that select are
        not among them.
        """
        wanted = {pick.score.node for pick in self.selections if pick.score.kind is RefKind.NODE}
        for index in reversed(range(len(self.indexer))):
            step = self.indexer[index]
            if index in wanted or step.op.side_effect:
                wanted |= {index, *(ref.node for ref in step.node.inputs if ref.kind is RefKind.NODE)}
        return tuple(self.indexer[index] for index in sorted(wanted))

    def _widths(self) -> Iterator[int]:
        for step in self.live:
            types = [step.node.type, *(self.graph.type_of(Stage.INDEXER, ref) for ref in step.node.inputs)]
            yield max(1, *(t.numel for t in types if t.has_blocks), 1)

    def saves(self) -> Iterator[tuple[Instruction, str, Format]]:
        """The instructions that write fields from the indexer, with the field and its format."""
        for step in self.live:
            if step.node.output is not None:
                yield step, step.node.output, self.graph.field(step.node.output).format

    def field(self, layer: LayerCache, name: str) -> torch.Tensor:
        """A field of the language as `[blocks, r, c]`: one of the layer's own, or what the pool stores. Read
        it with `take`, or through a table."""
        if name in layer.fields:
            return layer.fields[name]
        k, v = layer.pool.blocks(self.geometry.block_size)
        return {"k": k, "v": v, "latent": k}[name]

    def summarize(self, layer: LayerCache, blocks: slice | torch.Tensor) -> None:
        """Every op of the cache stage is lane-wise, so one pass serves any number of blocks."""
        done: list[torch.Tensor] = []
        device = layer.pool.k.device
        everywhere = torch.ones(1, dtype=torch.bool, device=device)

        def operand(ref: Ref) -> torch.Tensor:
            if ref.kind is RefKind.NODE:
                return done[ref.node]
            if ref.name in self.fields:  # nothing has written it yet
                return torch.zeros((1, *self.fields[ref.name]), device=device)
            data = self.field(layer, ref.name)
            return (data[blocks] if isinstance(blocks, slice) else take(data, blocks)).float()

        for step in self.cache:
            done.append(step.op.run(step.args, tuple(map(operand, step.node.inputs)), everywhere))
        for step, value in zip(self.cache, done, strict=True):
            if step.node.output is not None:
                field = layer.fields[step.node.output]
                field[blocks] = rounded(value, self.dtype).to(field.dtype)


def _instructions(stage: Stage, nodes: tuple[Node, ...]) -> tuple[Instruction, ...]:
    return tuple(
        Instruction(
            index, node, find_op(stage, node.op), Args({k: _number(v) for k, v in node.attrs}, node.type)
        )
        for index, node in enumerate(nodes)
    )


def _number(value: Attr) -> Attr:
    """A symbolic size as a plain integer: its comparisons are those of the interpreter, not of the tracer."""
    if isinstance(value, tuple):
        return tuple(_number(item) for item in value)
    return value.hint if isinstance(value, Dim) else value
