"""Random well-typed graphs over the whole op table, and rewrites of a graph that do not change the
algorithm."""

from __future__ import annotations

import math
from array import array
from random import Random

from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.graph.build import GraphBuilder
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, FlowGraph, Format, Node, Ref, RefKind, Stage, TensorType
from vortex.ops import OpDef, find_op, stage_ops
from vortex.ops.params import AxesParam, AxisParam, FloatParam, IntParam, LookupParam, WeightParam
from vortex.weights import Weight

MOST_ELEMENTS, MOST_WEIGHTS = 4096, 16384
Value = tuple[Ref, TensorType]


def random_graph(
    rng: Random,
    geometry: Geometry | None = None,
    ops: int = 8,
    kind: str = "gqa",
    stateful: bool = True,
    must: str | None = None,
) -> FlowGraph:
    """A graph with a few summaries and scores that some of `ops` random indexer ops lead to. `stateful`: at
    times with fields that the indexer saves from step to step. `must`: an indexer op that is used if it
    fits."""
    builder = GraphBuilder(kind, geometry)
    _summaries(builder, rng)
    saved = _running(builder, rng) if stateful and rng.random() < 0.3 else []
    fields = [*builder.fields, *(builder.injected if rng.random() < 0.1 else ())]
    values = [_value(builder, Stage.INDEXER, ref) for ref in [Ref.query(), *map(Ref.field, fields)]]
    for _ in range(ops):
        added = random_op(builder, Stage.INDEXER, values, rng)
        values += [added] if added else []
    if rng.random() < 0.2:
        values += _bound(builder, values, rng)
    if must is not None:
        values.append(_value(builder, Stage.INDEXER, builder.add(Stage.INDEXER, "Mean", {}, [Ref.query()])))
        added = random_op(builder, Stage.INDEXER, values, rng, only=must)
        values += [added] if added else []
        values += [_per_block(builder, values, added[0], rng)] if added and not added[1].has_blocks else []
    for name in saved:
        _save(builder, values, name, saved, rng)
    if rng.random() < 0.2:
        scores = [_score(builder, values, rng) for _ in range(2)]
        picks = [builder.add(Stage.INDEXER, "TopK", {"k": rng.choice((1, 3, 6, 40))}, [x]) for x in scores]
        builder.add(Stage.INDEXER, "Union", {}, picks)
    else:
        selector, score = rng.choice(("topK", "approxTopK")), _score(builder, values, rng)
        attrs = {"tolerate_ratio": rng.choice((0.0, 0.1))} if selector == "approxTopK" else {}
        builder.add(Stage.INDEXER, selector, attrs, [score])
    return builder.finish()


def _score(builder: GraphBuilder, values: list[Value], rng: Random) -> Ref:
    """One number a block, from one of the values."""
    blocks = [value for value in values if value[1].has_blocks]
    ref, found = blocks[-1] if rng.random() < 0.85 else rng.choice(blocks)
    if found.format is Format.PAGED:
        ref = builder.add(Stage.INDEXER, "Load", {}, [ref])
    return _reduced(builder, ref, found, 1, 1, rng)


def _reduced(builder: GraphBuilder, ref: Ref, found: TensorType, rows: int, cols: int, rng: Random) -> Ref:
    """`ref` with its inner dims reduced where they are not those asked for (1), at times after weights that
    show where a number stands."""
    if 1 < found.numel <= MOST_ELEMENTS // 4 and rng.random() < 0.4:
        numbers = array("f", [rng.uniform(-1.0, 2.0) for _ in range(found.numel)])
        weight = Weight.of_bytes((found.rows.hint, found.cols.hint), numbers.tobytes())
        weights = builder.add(Stage.INDEXER, "Parameter", {"value": weight}, [])
        ref = builder.add(Stage.INDEXER, "Multiply", {}, [ref, weights])
    for dim, size, wanted in ((1, found.rows, rows), (2, found.cols, cols)):
        if not size.same(wanted):
            ref = builder.add(
                Stage.INDEXER, rng.choice(("Max", "Mean", "Sum", "L2Norm")), {"dim": dim}, [ref]
            )
    return ref


def _per_block(builder: GraphBuilder, values: list[Value], ref: Ref, rng: Random) -> Value:
    """`ref` times a number for each block."""
    number = _reduced(builder, *rng.choice([value for value in values if value[1].has_blocks]), 1, 1, rng)
    return _value(builder, Stage.INDEXER, builder.add(Stage.INDEXER, "Multiply", {}, [ref, number]))


def _bound(builder: GraphBuilder, values: list[Value], rng: Random) -> list[Value]:
    """The bound of Quest, `Sum(2)(Maximum(q * a, q * b))`, of values that fit."""
    size = builder.type_of(Stage.INDEXER, Ref.query()).cols
    fit = [(ref, found) for ref, found in values if found.cols.same(size)]
    queries = [ref for ref, found in fit if found.format is Format.BATCHED]
    rows = [ref for ref, found in fit if found.has_blocks and found.rows.same(1)]
    if not rows:
        return []
    q, a, b = rng.choice(queries), rng.choice(rows), rng.choice(rows)
    sides = [builder.add(Stage.INDEXER, "Multiply", {}, rng.sample((q, side), 2)) for side in (a, b)]
    bound = builder.add(Stage.INDEXER, "Maximum", {}, sides)
    return [_value(builder, Stage.INDEXER, builder.add(Stage.INDEXER, "Sum", {"dim": 2}, [bound]))]


def _running(builder: GraphBuilder, rng: Random) -> list[str]:
    """Declares fields that the indexer will save: of blocks (perhaps filled by the cache stage) and rows."""
    names = ["running"]
    builder.declare("running", rng.choice(((1, 1), (2, 3))))
    if rng.random() < 0.5:
        builder.add(Stage.CACHE, "Fill", {"alpha": rng.choice((0.0, 1.5))}, [], "running")
    if rng.random() < 0.5:
        names.append("other")
        field = builder.fields["running"]
        builder.declare("other", (field.rows, field.cols))
    if rng.random() < 0.5:
        names.append("request")
        builder.declare("request", (1, rng.choice((1, 3))), Format.SLOTTED)
    return names


def _save(builder: GraphBuilder, values: list[Value], name: str, saved: list[str], rng: Random) -> None:
    """Saves some value of the right format, mixed with what the field holds, or the old value of a field."""
    target = builder.fields[name]
    if rng.random() < 0.3:
        alike = [other for other in saved if builder.fields[other].type == target.type]
        value = builder.add(Stage.INDEXER, "Load", {}, [Ref.field(rng.choice(alike))])
    else:
        blocks = target.format is Format.PAGED
        ref, found = rng.choice([value for value in values if value[1].has_blocks == blocks])
        if found.format in (Format.PAGED, Format.SLOTTED):
            ref = builder.add(Stage.INDEXER, "Load", {}, [ref])
        if found.format is Format.PARAMETER:
            ref = builder.add(Stage.INDEXER, "Multiply", {}, [Ref.query(), Ref.query()])
            found = builder.type_of(Stage.INDEXER, ref)
        ref = _reduced(builder, ref, found, 1, 1, rng)
        mixed = {"alpha": 0.5, "beta": 1.0}
        value = builder.add(Stage.INDEXER, "Add", mixed, [Ref.field(name), ref])
    values.append(_value(builder, Stage.INDEXER, builder.add(Stage.INDEXER, "Save", {}, [value], name)))


def _summaries(builder: GraphBuilder, rng: Random) -> None:
    values = [_value(builder, Stage.CACHE, Ref.field(name)) for name in builder.injected]
    early = rng.random() < 0.2
    if early:  # zeros to all that reads it here
        builder.declare("early", (1, 4))
        values.append(_value(builder, Stage.CACHE, Ref.field("early")))
    for count in range(rng.randint(1, 4)):
        for _ in range(rng.randint(0, 3)):
            added = random_op(builder, Stage.CACHE, values, rng)
            values += [added] if added else []
        source = values[-1] if rng.random() < 0.8 else rng.choice(values)
        small = source[1].numel < 64
        op = rng.choice(("Mean", "Max", "Min", "L2Norm", *(["Reshape"] if small else [])))
        attrs: dict[str, object] = {"dim": rng.choice((1, 2)) if small else 1}
        definition = find_op(Stage.CACHE, op)
        if op == "Reshape":
            attrs = random_attrs(definition, Stage.CACHE, [source], rng)
        result = definition.result(Stage.CACHE, definition.bind((), attrs, Stage.CACHE), (source[1],))
        name = f"field_{count}"
        builder.declare(name, (result.rows, result.cols))
        values.append(_value(builder, Stage.CACHE, builder.add(Stage.CACHE, op, attrs, [source[0]], name)))
    if early and rng.random() < 0.5:
        builder.add(Stage.CACHE, "Fill", {"alpha": 1.5}, [], "early")


def _value(builder: GraphBuilder, stage: Stage, ref: Ref) -> Value:
    return ref, builder.type_of(stage, ref)


def plain_ops(stage: Stage) -> list[OpDef]:
    """The ops that may stand anywhere in a program."""
    return [op for op in stage_ops(stage).values() if not (op.claims_output or op.selects or op.writes_field)]


def random_op(
    builder: GraphBuilder, stage: Stage, values: list[Value], rng: Random, only: str | None = None
) -> Value | None:
    """Adds one random op (of the name `only`) that fits some of `values`, or gives up."""
    table = [op for op in plain_ops(stage) if only in (None, op.name)]
    for _ in range(20 if only is None else 1000):
        op = rng.choice(table)
        operands = [rng.choice(values) for _ in op.operands]
        attrs = random_attrs(op, stage, operands or [rng.choice(values)], rng)
        types = tuple(found for _, found in operands)
        try:
            found = op.result(stage, op.bind((), attrs, stage), types)
        except FlowTypeError:
            continue
        if found.numel <= MOST_ELEMENTS:
            return _value(builder, stage, builder.add(stage, op.name, attrs, [ref for ref, _ in operands]))
    return None


def random_attrs(op: OpDef, stage: Stage, operands: list[Value], rng: Random) -> dict[str, object]:
    if op.name == "Reshape":
        rows = rng.choice([size for size in (1, 2, 4, 8) if operands[0][1].numel % size == 0])
        return {"lead": -1, "rows": rows, "cols": Dim.of(operands[0][1].rows * operands[0][1].cols) // rows}
    if op.name == "MaskSlice":
        dim = rng.choice((1, 2))
        size = operands[0][1].rows if dim == 1 else operands[0][1].cols
        start = rng.randint(0, size.hint // 2)
        marks = {"alpha": rng.choice((1.0, -2.0)), "beta": rng.choice((0.0, 0.5))}
        return {"start": start, "end": rng.choice((size, size.hint, start)), "dim": dim, **marks}
    attrs: dict[str, object] = {}
    for param in op.params:
        match param:
            case AxisParam(choices=choices):
                attrs[param.name] = rng.choice((choices or {}).get(stage, (1, 2)))
            case AxesParam():
                attrs[param.name] = rng.choice(((1, 2), (1,), (2,)))
            case WeightParam():
                attrs[param.name] = random_weight(op, param, operands, rng)
            case LookupParam():
                attrs[param.name] = rng.choice((None, {0: 0}))
            case IntParam():
                attrs[param.name] = rng.choice((1, 2, 4))
            case FloatParam():
                attrs[param.name] = rng.choice(
                    (0.0, 0.25, 1.0) if "ratio" in param.name else (-1.0, 0.0, 0.09, 2.0)
                )
    return attrs


def random_weight(op: OpDef, param: WeightParam, operands: list[Value], rng: Random) -> Weight | None:
    """An array that fits the op's operand."""
    if not param.required and rng.random() < 0.3:
        return None
    rows, cols = (operands[0][1].rows.hint, operands[0][1].cols.hint) if operands else (2, 8)
    if op.name == "Parameter":  # its operand is only an example of a value
        shape = rng.choice(((1, 1), (rows, cols), (2, rows, cols), (1, cols), (2, 3, cols)))
    elif op.name == "Conv1d":
        shape = (rng.randint(1, 3), rows, cols)
    else:
        shape = (2, rows, cols, cols if cols <= 4 else 2)
    if math.prod(shape) > MOST_WEIGHTS:
        return None
    numbers = array("f", rng.choices((-1.0, 0.0, 0.25, 0.3, 2.0), k=math.prod(shape)))
    return Weight.of_bytes(shape, numbers.tobytes())


def scrambled(graph: FlowGraph, rng: Random) -> FlowGraph:
    """The same algorithm, written differently: other names and order, swapped operands of commutative ops,
    duplicated ops, unused ops, unused fields, other ignored arguments."""
    builder = GraphBuilder(graph.kind, graph.traced_at)
    names = {field.name: f"renamed_{rng.randrange(10**6)}_{at}" for at, field in enumerate(graph.fields)}
    for field in rng.sample(graph.fields, len(graph.fields)):
        builder.declare(names[field.name], (field.rows, field.cols), field.format)
    for at in range(rng.randint(0, 2)):
        builder.declare(f"unused_{at}", (rng.choice((1, 3)), 5))
    for stage in Stage:
        placed: dict[int, list[Ref]] = {}
        program = graph.program(stage)
        for index in _any_order(program, rng):
            node = program[index]
            for copy in range(1 + (rng.random() < 0.3 and not find_op(stage, node.op).claims_output)):
                inputs = [_moved(ref, names, placed, rng) for ref in node.inputs]
                attrs, inputs = _swapped(stage, node, inputs, rng)
                output = names[node.output] if node.output is not None and copy == 0 else None
                if output is None and find_op(stage, node.op).writes_field:
                    continue
                placed.setdefault(index, []).append(builder.add(stage, node.op, attrs, inputs, output))
        if rng.random() < 0.5:
            anything = Ref.query() if stage is Stage.INDEXER else Ref.field("v")
            builder.add(stage, "Exp", {"alpha": rng.random()}, [anything])
    return builder.finish(graph.guards)


def _any_order(program: tuple[Node, ...], rng: Random) -> list[int]:
    waiting, order = list(range(len(program))), list[int]()
    while waiting:
        ready = [
            at
            for at in waiting
            if all(ref.kind is not RefKind.NODE or ref.node in order for ref in program[at].inputs)
        ]
        order.append(rng.choice(ready))
        waiting.remove(order[-1])
    return order


def _moved(ref: Ref, names: dict[str, str], placed: dict[int, list[Ref]], rng: Random) -> Ref:
    if ref.kind is RefKind.NODE:
        return rng.choice(placed[ref.node])
    return Ref.field(names.get(ref.name, ref.name)) if ref.kind is RefKind.FIELD else ref


def _swapped(stage: Stage, node: Node, inputs: list[Ref], rng: Random) -> tuple[dict[str, Attr], list[Ref]]:
    op, attrs = find_op(stage, node.op), dict(node.attrs)
    if op.swap is not None and rng.random() < 0.5:
        attrs, inputs = dict(op.swap(attrs)), inputs[::-1]
    for param in op.params:
        if param.ignored:
            attrs[param.name] = rng.random()
    return attrs, inputs
