"""The program of one stage as flat lists: tensors and ops by number, and which makes or takes which."""

from __future__ import annotations

from dataclasses import dataclass

from vortex.graph.model import FlowGraph, Node, Ref, RefKind, Stage, TensorType


@dataclass(frozen=True)
class GraphTensor:
    """A tensor of a traced flow: the query, a field, or the result of an op."""

    name: str
    type: TensorType


class GraphLists:
    """Views of a graph's program as it was traced. A tensor's id is its place in `tensors`, an op's its place
    in `ops`: first the query (indexer only), then the fields, then one result for each op."""

    def __init__(self, graph: FlowGraph, stage: Stage) -> None:
        self.ops: list[Node] = list(graph.program(stage))
        query = [Ref.query()] if stage is Stage.INDEXER else []
        fields = [Ref.field(field.name) for field in (*graph.fields, *graph.injected)]
        results = [Ref.at(index) for index in range(len(self.ops))]
        self.refs = [*query, *fields, *results]
        ids = {ref: place for place, ref in enumerate(self.refs)}
        self.tensors = [GraphTensor(self._name(ref), graph.type_of(stage, ref)) for ref in ids]
        self.inputs = [[ids[ref] for ref in node.inputs] for node in self.ops]
        """Tensor ids that each op takes."""
        self.outputs = [
            [ids[Ref.at(index)], *([ids[Ref.field(node.output)]] if node.output is not None else [])]
            for index, node in enumerate(self.ops)
        ]
        """Tensor ids that each op makes: its result, and the field that it writes."""
        self.makers: list[int | None] = [None] * len(self.tensors)
        """The op that makes each tensor; None for what a step starts with."""
        for op, made in enumerate(self.outputs):
            for tensor in made:
                self.makers[tensor] = op

    def _name(self, ref: Ref) -> str:
        if ref.kind is RefKind.NODE:
            return f"{self.ops[ref.node].op}_{ref.node}"
        return "q" if ref.kind is RefKind.QUERY else ref.name
