"""Rewrites of a graph that leave what it computes and change how fast a target is.

Each is expressed in ops of the language, so that no semantics are written a second time. Ops that a rewrite
leaves without a reader stay in the program; a target does not run them.
"""

from __future__ import annotations

from vortex.graph.build import GraphBuilder
from vortex.graph.model import Attr, FlowGraph, Format, Node, Ref, RefKind, Stage


def bound_as_products(graph: FlowGraph) -> FlowGraph:
    """`Sum(2)(Maximum(q * a, q * b))` as two products of matrices.

    For every feature `max(q a, q b) = max(q, 0) max(a, b) + min(q, 0) min(a, b)`, so the sum over features
    needs no intermediate of the size blocks x heads x features. This is the bound of Quest (arXiv
    2406.10774). It holds for finite numbers only: 0 times infinity is NaN.
    """
    finite = _finite(graph)
    found = {index: _bound(graph, node, finite) for index, node in enumerate(graph.indexer)}
    if not any(found.values()):
        return graph
    builder = GraphBuilder(graph.kind, graph.traced_at)
    for field in graph.fields:
        builder.declare(field.name, (field.rows, field.cols), field.format)
    for node in graph.cache:
        builder.add(Stage.CACHE, node.op, dict(node.attrs), node.inputs, node.output)
    places: list[Ref] = []

    def moved(ref: Ref) -> Ref:
        return places[ref.node] if ref.kind is RefKind.NODE else ref

    def add(op: str, *inputs: Ref, **attrs: float) -> Ref:
        return builder.add(Stage.INDEXER, op, attrs, inputs)

    for index, node in enumerate(graph.indexer):
        operands = found[index]
        if operands is None:
            inputs = [moved(ref) for ref in node.inputs]
            places.append(builder.add(Stage.INDEXER, node.op, dict(node.attrs), inputs, node.output))
            continue
        q, a, b = (moved(ref) for ref in operands)
        high, low = _ordered(graph, a, b) or (add("Maximum", a, b), add("Minimum", a, b))
        above = add("Relu", q)
        below = add("Add", q, above, alpha=1.0, beta=-1.0)
        places.append(add("Add", add("GeMM", high, above), add("GeMM", low, below)))
    return builder.finish(graph.guards)


_TURNABLE = {"Add", "Relu", "Abs", "Add_Mul", "Sigmoid", "Silu", "Log", "Exp", "Softmax", "Normalize"}
_REDUCTIONS = {"Max", "Min", "Mean", "Sum", "L2Norm"}


def rows_as_columns(graph: FlowGraph) -> FlowGraph:
    """A column of products for each block, `GeMM(block, q) [S, group, 1]`, only reduced over its rows,
    as the row of columns `GeMM(q, block)`: kernels keep columns apart, and need not move them."""
    turned = _turnable(graph)
    if not turned:
        return graph
    builder = GraphBuilder(graph.kind, graph.traced_at)
    for field in graph.fields:
        builder.declare(field.name, (field.rows, field.cols), field.format)
    for node in graph.cache:
        builder.add(Stage.CACHE, node.op, dict(node.attrs), node.inputs, node.output)
    for index, node in enumerate(graph.indexer):
        attrs, inputs = dict(node.attrs), node.inputs
        if index in turned and node.op == "GeMM":
            inputs = inputs[::-1]
        elif index not in turned and any(ref.node in turned for ref in inputs):
            attrs["dim"] = 2
        builder.add(Stage.INDEXER, node.op, attrs, inputs, node.output)
    return builder.finish(graph.guards)


def _turnable(graph: FlowGraph) -> set[int]:
    """The products of `rows_as_columns`, and what is computed of them element by element."""
    found: set[int] = set()
    for index, node in enumerate(graph.indexer):
        if node.op == "GeMM":
            x, y = (graph.type_of(Stage.INDEXER, ref) for ref in node.inputs)
            if x.has_blocks and x.rows.hint == 1 and not y.has_blocks and y.format is not Format.PARAMETER:
                found.add(index)
        elif node.op in _TURNABLE and found.issuperset(ref.node for ref in node.inputs):
            found.add(index)
    kept: set[int] = set()
    while kept != found:
        kept = set(found)
        for index, node in enumerate(graph.indexer):
            stays = index in found or (node.op in _REDUCTIONS and node.attr("dim") == 1)
            if not stays:
                found -= {ref.node for ref in node.inputs}
        found = {
            index
            for index in found
            if graph.indexer[index].op == "GeMM"
            or found.issuperset(ref.node for ref in graph.indexer[index].inputs)
        }
    return found


def _bound(graph: FlowGraph, node: Node, finite: set[Ref]) -> tuple[Ref, Ref, Ref] | None:
    """`(q, a, b)` where `node` is `Sum(2)(Maximum(q * a, q * b))` of a batched q and one row of features a
    block, all of them in `finite`.
    """
    if node.op != "Sum" or node.attr("dim") != 2:
        return None
    top = _node(graph, node.inputs[0])
    if top is None or top.op != "Maximum":
        return None
    left, right = (_node(graph, ref) for ref in top.inputs)
    if left is None or right is None or {left.op, right.op} != {"Multiply"}:
        return None
    for q in left.inputs:
        others = [tuple(ref for ref in side.inputs if ref != q) for side in (left, right)]
        if [len(other) for other in others] != [1, 1]:
            continue
        query, a, b = (graph.type_of(Stage.INDEXER, ref) for ref in (q, others[0][0], others[1][0]))
        rows = all(
            t.format is not Format.BATCHED and t.rows.hint == 1 and t.cols.hint == query.cols.hint
            for t in (a, b)
        )
        operands = (q, others[0][0], others[1][0])
        if query.format is Format.BATCHED and rows and finite.issuperset(operands):
            return operands
    return None


_NOT_LARGER = {"Max", "Min", "Mean", "MaxInterleave", "MinInterleave", "MeanInterleave", "Maximum", "Minimum"}
_NOT_LARGER |= {"Load", "Reshape", "Transpose"}


def _finite(graph: FlowGraph) -> set[Ref]:
    """Operands of the indexer that are surely finite: what the engine provides, and what is not larger."""
    engine = {Ref.field(field.name) for field in graph.injected}
    zeros = {Ref.field(field.name) for field in graph.fields}
    summaries = _not_larger(graph.cache, engine | zeros)
    written = {node.output: Ref.at(index) in summaries for index, node in enumerate(graph.cache)}
    saved = {node.output for node in graph.indexer}
    fields = {ref for ref in zeros if ref.name not in saved and written.get(ref.name, True)}
    return _not_larger(graph.indexer, engine | fields | {Ref.query()})


def _not_larger(program: tuple[Node, ...], known: set[Ref]) -> set[Ref]:
    """`known`, with the ops whose results are not larger than operands that are in it."""
    masks: set[Ref] = set()  # numbers from -1 to 1
    for index, node in enumerate(program):
        if node.op == "MaskSlice" and all(abs(_number(node.attr(name))) <= 1 for name in ("alpha", "beta")):
            masks.add(Ref.at(index))
            known.add(Ref.at(index))
        masked = node.op == "Multiply" and not masks.isdisjoint(node.inputs)
        if (masked or node.op in _NOT_LARGER) and known.issuperset(node.inputs):
            known.add(Ref.at(index))
    return known


def _number(value: Attr) -> float:
    assert isinstance(value, (int, float))
    return float(value)


def _ordered(graph: FlowGraph, a: Ref, b: Ref) -> tuple[Ref, Ref] | None:
    """The two fields with the greater one first, where one is the maximum and one the minimum of the same
    thing.
    """
    if a.kind is not RefKind.FIELD or b.kind is not RefKind.FIELD:
        return None
    writers = {node.output: node for node in graph.cache if node.output is not None}
    for high, low in ((a, b), (b, a)):
        most, least = writers.get(high.name), writers.get(low.name)
        if most is None or least is None or (most.inputs, most.attrs) != (least.inputs, least.attrs):
            continue
        if (most.op, least.op) in {("Max", "Min"), ("MaxInterleave", "MinInterleave")}:
            return high, low
    return None


def _node(graph: FlowGraph, ref: Ref) -> Node | None:
    return graph.indexer[ref.node] if ref.kind is RefKind.NODE else None
