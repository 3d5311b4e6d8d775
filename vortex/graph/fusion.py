"""Cuts a graph into kernels: what runs together, what a kernel reads from memory and what it leaves there.

The cache program is one kernel a finished block. In the indexer, ops fuse greedily by level. The ops of a
level that work on a row alone (on the query, say) are one kernel; then those that work on each block are one
kernel; then each op over the blocks of a row is a kernel of its own. What needs results of a later kind is
of the next level. The selection is one kernel.

This is what a flow is priced by, whatever runs it. Generated kernels (`vortex.targets.triton.schedule`) pass
through the blocks as often or less: an op over blocks needs no kernel of its own there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vortex.graph.model import FlowGraph, Node, Ref, RefKind, Stage
from vortex.ops import Args, find_op


class Kind(IntEnum):
    """What a kernel works on, in the order in which the kernels of a level run."""

    ROW = 0  # each row: ops on the query, constants and request fields
    BLOCK = 1  # each scored block of a row; in the cache program each finished block
    ACROSS = 2  # the scored blocks of a row together: one op over blocks
    SELECT = 3  # the same: topK and its kin


@dataclass(frozen=True)
class Kernel:
    """Ops that run together, by their positions in the program.

    `inputs`, each read from memory once, before anything is written: the query, fields, constants
    (`Parameter`), results of other kernels. `results`: ops whose results are left in memory for other
    kernels. `fields`: fields that are written.
    """

    kind: Kind
    nodes: tuple[int, ...]
    inputs: tuple[Ref, ...]
    results: tuple[int, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernels:
    """A graph cut into kernels.

    `summary` is None where nothing is summarised. `scoring` is in an order in which the kernels may run, the
    selection among them. `operands`: where each op of the indexer finds its operands. `Load` and `Save` are
    no copies: their result is the field, or the value that is saved. Only the selection reads no field: its
    scores lie side by side.
    """

    graph: FlowGraph
    summary: Kernel | None
    scoring: tuple[Kernel, ...]
    operands: tuple[tuple[Ref, ...], ...]


def cut(graph: FlowGraph) -> Kernels:
    """The kernels of an instantiated graph."""
    indexer = _Indexer(graph)
    return Kernels(graph, _summary(graph), indexer.kernels(), indexer.operands)


def _summary(graph: FlowGraph) -> Kernel | None:
    """Reads what the engine has written. Other fields are zeros to the cache program, whatever a block of an
    earlier request has left in their place."""
    if not graph.cache:
        return None
    injected = {field.name for field in graph.injected}
    read = dict.fromkeys(ref for node in graph.cache for ref in node.inputs if ref.name in injected)
    written = tuple(node.output for node in graph.cache if node.output is not None)
    return Kernel(Kind.BLOCK, tuple(range(len(graph.cache))), tuple(read), fields=written)


def _kind(node: Node) -> Kind:
    op = find_op(Stage.INDEXER, node.op)
    if op.claims_output or op.selects:
        return Kind.SELECT
    if op.across_blocks(Args(dict(node.attrs))):
        return Kind.ACROSS
    return Kind.BLOCK if node.type.has_blocks else Kind.ROW


_Place = tuple[int, Kind, int]
"""Level, kind, and the op's position if it is a kernel of its own. Equal places are one kernel, lower ones
run first."""


class _Indexer:
    def __init__(self, graph: FlowGraph) -> None:
        self.nodes = graph.indexer
        self.ops = [find_op(Stage.INDEXER, node.op) for node in self.nodes]
        self.kinds = [_kind(node) for node in self.nodes]
        self.operands = tuple(self._operands(index) for index in range(len(self.nodes)))
        self.live = self._live()
        self.places: dict[int, _Place] = {}
        self._place_all()

    def _operands(self, index: int) -> tuple[Ref, ...]:
        refs = self.nodes[index].inputs
        sources = [self._source(ref) for ref in refs]
        if self.kinds[index] is Kind.SELECT:
            sources = [r if s.kind is RefKind.FIELD else s for r, s in zip(refs, sources, strict=True)]
        return tuple(sources)

    def _source(self, ref: Ref) -> Ref:
        while ref.kind is RefKind.NODE and self.nodes[ref.node].op in ("Load", "Save"):
            (ref,) = self.nodes[ref.node].inputs
        return ref

    def _live(self) -> list[int]:
        """The ops that the selection and the saved fields depend on, in order."""
        found: set[int] = set()
        stack = [index for index, op in enumerate(self.ops) if op.claims_output or op.side_effect]
        while stack:
            index = stack.pop()
            if index not in found:
                found.add(index)
                stack += self._producers(index)
        return sorted(found)

    def _producers(self, index: int) -> list[int]:
        refs = self.operands[index]
        return [ref.node for ref in refs if ref.kind is RefKind.NODE and not self.ops[ref.node].constant]

    def _place_all(self) -> None:
        for index in self.live:
            self._place(index, self._producers(index))
        last = max(place for place in self.places.values() if place[1] is Kind.SELECT)
        self.places |= {index: last for index in self.live if self.kinds[index] is Kind.SELECT}
        before: dict[int, _Place] = {}
        while before != self.places:  # a field is written after, or by, the last kernel that reads it
            before = dict(self.places)
            for index in self.live:
                if self.ops[index].side_effect:
                    self._place(index, [*self._producers(index), *self._readers(self.nodes[index].output)])

    def _readers(self, field: str | None) -> list[int]:
        ref = Ref.field(field or "")
        return [index for index in self.live if ref in self.operands[index]]

    def _place(self, index: int, after: Iterable[int]) -> None:
        kind, level = self.kinds[index], 0
        for other in after:
            other_level, other_kind, _ = self.places[other]
            level = max(level, other_level + (other_kind > kind))
        self.places[index] = (level, kind, index if kind is Kind.ACROSS else -1)

    def kernels(self) -> tuple[Kernel, ...]:
        readers: dict[Ref, set[_Place]] = {}
        for index in self.live:
            for ref in self.operands[index]:
                readers.setdefault(ref, set()).add(self.places[index])
        found = []
        for place in sorted(set(self.places.values())):
            nodes = tuple(index for index in self.live if self.places[index] == place)
            read = dict.fromkeys(ref for index in nodes for ref in self.operands[index])
            outputs = (self.nodes[index].output for index in nodes)
            found.append(
                Kernel(
                    kind=place[1],
                    nodes=nodes,
                    inputs=tuple(ref for ref in read if ref.node not in nodes),
                    results=tuple(i for i in nodes if readers.get(Ref.at(i), {place}) != {place}),
                    fields=tuple(name for name in outputs if name is not None),
                )
            )
        return tuple(found)
