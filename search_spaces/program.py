"""Between a graph and the expression its selector ranks by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.expr import Apply, Attrs, Expr, Given, Stored, fields
from search_spaces.typed import type_of, with_hints
from vortex.graph.build import GraphBuilder
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Node, Ref, RefKind, Stage
from vortex.ops import find_op

LARGEST = 400
"""Ops in a tree: a graph that shares so much that its tree is larger cannot be mutated here."""


class OutsideError(ValueError):
    """A graph that the grammar does not cover: MLA, state between steps, or a selector of several
    scores."""


@dataclass(frozen=True)
class Program:
    """A flow of the grammar: the score of a block, and the op that selects by it."""

    score: Expr
    selector: str = "topK"
    attrs: Attrs = ()


def from_graph(graph: FlowGraph) -> Program:
    """The program of a graph. Its guards are dropped: they speak of the author's Python, and the types
    are inferred again. Raises OutsideError."""
    if graph.kind != "gqa":
        raise OutsideError(f"the grammar covers gqa flows, not {graph.kind}")
    source = graph.canonical()
    kept: dict[str, Expr] = {}
    values: list[Expr] = []
    for node in source.cache:
        values.append(_apply(node, values, {}, Stage.CACHE))
        if node.output is not None:
            kept[node.output] = values[-1]
    stored = {name: Stored(value) for name, value in kept.items()}
    scores: list[Expr] = []
    for node in source.indexer:
        scores.append(_apply(node, scores, stored, Stage.INDEXER))
    at = next(i for i, node in enumerate(source.indexer) if find_op(Stage.INDEXER, node.op).claims_output)
    selector = scores[at]
    if not isinstance(selector, Apply) or len(selector.operands) != 1:
        raise OutsideError(f"the selector {source.indexer[at].op} takes more than one score")
    return Program(selector.operands[0], selector.op, selector.attrs)


def to_graph(program: Program, geometry: Geometry | None = None) -> FlowGraph:
    """The canonical graph of a program. Raises UntypedError or FlowTypeError when there is none."""
    build = GraphBuilder("gqa", geometry)
    names: dict[Stored, str] = {}
    for i, field in enumerate(fields(program.score)):
        held = type_of(field, Stage.INDEXER, build.geometry)
        build.declare(f"f{i}", (held.rows, held.cols))
        names[field] = f"f{i}"
    cache = _Emitter(build, Stage.CACHE, {field.value: name for field, name in names.items()}, {})
    for field in names:
        cache.emit(field.value)
    _Emitter(build, Stage.INDEXER, {}, names).emit(Apply(program.selector, program.attrs, (program.score,)))
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


def _apply(node: Node, values: list[Expr], stored: dict[str, Stored], stage: Stage) -> Apply:
    definition = find_op(stage, node.op)
    if definition.side_effect or (definition.writes_field and not node.inputs):
        raise OutsideError(f"{node.op} keeps state that an expression does not hold")
    operands = tuple(_operand(ref, values, stored, stage) for ref in node.inputs)
    made = Apply(node.op, node.attrs, operands)
    if made.size > LARGEST:
        raise OutsideError(f"the flow is larger than {LARGEST} ops when nothing is shared")
    return made


def _operand(ref: Ref, values: list[Expr], stored: dict[str, Stored], stage: Stage) -> Expr:
    if ref.kind is RefKind.QUERY:
        return Given("q")
    if ref.kind is RefKind.NODE:
        return values[ref.node]
    if ref.name in stored:
        return stored[ref.name]
    if ref.name in ("k", "v"):
        return Given(ref.name)
    raise OutsideError(f"the field {ref.name} is read before anything is written to it")
