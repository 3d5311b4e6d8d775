"""Between a graph and the expressions its selector ranks by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.expr import Apply, Expr, Given, Stored, fields, kind_of, replaced
from search_spaces.typed import TRACED, op, type_of, with_hints
from vortex.graph.build import GraphBuilder
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Node, Ref, RefKind, Stage
from vortex.ops import find_op

LARGEST = 400
"""Ops in a tree: a graph that shares so much that its tree is larger cannot be mutated here."""


class OutsideError(ValueError):
    """A graph that the grammar does not cover: one that keeps state between steps."""


@dataclass(frozen=True)
class Program:
    """A flow of the grammar: its selector over the score of a block, or a union of two such selections."""

    root: Apply

    @staticmethod
    def top(score: Expr) -> Program:
        """As many blocks as the plan says, by one score."""
        return Program(op(Stage.INDEXER, "topK", score))

    @staticmethod
    def union(first: Expr, second: Expr, k: tuple[int, int]) -> Program:
        """The k[0] best blocks by one score and the k[1] best by another."""
        picks = (op(Stage.INDEXER, "TopK", score, k=n) for score, n in zip((first, second), k, strict=True))
        return Program(op(Stage.INDEXER, "Union", *picks))

    @property
    def kind(self) -> str:
        """Of the flow: "gqa" or "mla"."""
        return kind_of(self.root)

    @property
    def scores(self) -> tuple[Expr, ...]:
        """What blocks are ranked by: one score, or the two of a union."""
        return tuple(self._at(path) for path in self._paths)

    def with_score(self, index: int, score: Expr) -> Program:
        """The same selector with one of the scores replaced."""
        root = replaced(self.root, self._paths[index], score)
        assert isinstance(root, Apply)
        return Program(root)

    @property
    def _paths(self) -> list[tuple[int, ...]]:
        if find_op(Stage.INDEXER, self.root.op).takes_selections:
            return [(i, 0) for i in range(len(self.root.operands))]
        return [(0,)]

    def _at(self, path: tuple[int, ...]) -> Expr:
        found: Expr = self.root
        for index in path:
            found = found.inputs[index]
        return found


def from_graph(graph: FlowGraph) -> Program:
    """The program of a graph. Its guards are dropped: they speak of the author's Python, and the types
    are inferred again. Raises OutsideError."""
    source = graph.canonical()
    own = {field.name for field in source.injected}
    kept: dict[str, Expr] = {name: Given(name, graph.kind) for name in own}
    values: list[Expr] = []
    for node in source.cache:
        values.append(_apply(node, values, kept, Stage.CACHE, graph.kind))
        if node.output is not None:
            kept[node.output] = values[-1]
    stored = {name: value if name in own else Stored(value) for name, value in kept.items()}
    scores: list[Apply] = []
    for node in source.indexer:
        scores.append(_apply(node, scores, stored, Stage.INDEXER, graph.kind))
        if find_op(Stage.INDEXER, node.op).claims_output:
            root = scores[-1]
    return Program(root)


def to_graph(program: Program, geometry: Geometry | None = None) -> FlowGraph:
    """The canonical graph of a program. Raises UntypedError or FlowTypeError when there is none."""
    build = GraphBuilder(program.kind, geometry or TRACED[program.kind])
    names: dict[Stored, str] = {}
    for i, field in enumerate(fields(program.root)):
        held = type_of(field, Stage.INDEXER, build.geometry)
        build.declare(f"f{i}", (held.rows, held.cols))
        names[field] = f"f{i}"
    cache = _Emitter(build, Stage.CACHE, {field.value: name for field, name in names.items()}, {})
    for field in names:
        cache.emit(field.value)
    _Emitter(build, Stage.INDEXER, {}, names).emit(program.root)
    return build.finish().canonical()


class _Emitter:
    """Writes an expression as ops, equal subexpressions once."""

    def __init__(
        self, build: GraphBuilder, stage: Stage, outputs: Mapping[Expr, str], names: Mapping[Stored, str]
    ):
        self._build, self._stage, self._outputs, self._names = build, stage, outputs, names
        self._at: dict[Expr, Ref] = {}

    def emit(self, expr: Expr) -> Ref:
        if isinstance(expr, Given):
            return Ref.query() if expr.name == "q" else Ref.field(expr.name)
        if isinstance(expr, Stored):
            return Ref.field(self._names[expr])
        assert isinstance(expr, Apply)
        if expr not in self._at:
            inputs = [self.emit(operand) for operand in expr.operands]
            attrs = dict(with_hints(expr.attrs, self._build.geometry))
            self._at[expr] = self._build.add(self._stage, expr.op, attrs, inputs, self._outputs.get(expr))
        return self._at[expr]


def _apply(
    node: Node, values: list[Expr] | list[Apply], named: Mapping[str, Expr], stage: Stage, kind: str
) -> Apply:
    definition = find_op(stage, node.op)
    if definition.side_effect or (definition.writes_field and not node.inputs):
        raise OutsideError(f"{node.op} keeps state that an expression does not hold")
    operands = tuple(_operand(ref, values, named, kind) for ref in node.inputs)
    made = Apply(node.op, node.attrs, operands)
    if made.size > LARGEST:
        raise OutsideError(f"the flow is larger than {LARGEST} ops when nothing is shared")
    return made


def _operand(ref: Ref, values: list[Expr] | list[Apply], named: Mapping[str, Expr], kind: str) -> Expr:
    if ref.kind is RefKind.QUERY:
        return Given("q", kind)
    if ref.kind is RefKind.NODE:
        return values[ref.node]
    if ref.name in named:
        return named[ref.name]
    raise OutsideError(f"the field {ref.name} is read before anything is written to it")
