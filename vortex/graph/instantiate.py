"""A graph at the sizes of one model and one block size."""

from __future__ import annotations

from vortex.dims import Dim
from vortex.errors import FlowTypeError, GuardError
from vortex.graph.build import SYMBOLS, GraphBuilder
from vortex.graph.geometry import Geometry
from vortex.graph.limits import check_size
from vortex.graph.model import Attr, FlowGraph, Stage
from vortex.guards import Guard
from vortex.symbols import ExpressionError


def instantiate(graph: FlowGraph, geometry: Geometry) -> FlowGraph:
    """See `FlowGraph.instantiate`. The result keeps its expressions; the int value of each Dim is that of
    `geometry`."""
    canonical = graph.canonical()
    if canonical.traced_at == geometry:
        check_size(canonical)
        return canonical
    missing = [name for name in SYMBOLS[graph.kind] if name not in geometry.bindings()]
    if missing:
        raise GuardError(f"the flow needs {' and '.join(missing)}, which {geometry} does not have")
    bindings = {name: geometry.bindings()[name] for name in SYMBOLS[graph.kind]}
    shown = ", ".join(f"{name}={value}" for name, value in bindings.items())
    try:
        for text in canonical.guards:
            if not Guard.parse(text, bindings).holds(bindings):
                raise GuardError(f"the flow relies on {text}, which {shown} breaks")
        builder = GraphBuilder(graph.kind, geometry)
        for field in canonical.fields:
            builder.declare(field.name, (_at(field.rows, bindings), _at(field.cols, bindings)), field.format)
        for stage in (Stage.CACHE, Stage.INDEXER):
            for node in canonical.program(stage):
                attrs = {name: _attr_at(value, bindings) for name, value in node.attrs}
                builder.add(stage, node.op, attrs, node.inputs, node.output)
        result = builder.finish(canonical.guards)
    except (FlowTypeError, ExpressionError, ZeroDivisionError) as error:
        raise GuardError(f"the flow does not serve {shown}: {error}") from None
    check_size(result)
    result.__dict__["_canonical"] = result
    return result


def _at(size: Dim, bindings: dict[str, int]) -> Dim:
    return Dim(size.evaluate(bindings), size.expr)


def _attr_at(value: Attr, bindings: dict[str, int]) -> Attr:
    if isinstance(value, tuple):
        return tuple(_attr_at(item, bindings) for item in value)
    return _at(value, bindings) if isinstance(value, Dim) else value
