"""Finds what a trace cannot see: sizes that Python code has used without leaving a trace in them.

`0.25 * head_dim`, `math.log2(head_dim)` and `range(group)` read the number behind a symbolic size. So a flow
is traced again at the sizes that models have, one symbol at a time and some together. Where it then gives
another graph than the first trace says for these sizes, the symbol is fixed by a guard; sizes that the
author's code refuses are excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from vortex.dims import Dim
from vortex.errors import GuardError, VortexError
from vortex.graph.build import SYMBOLS
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, FlowGraph
from vortex.guards import Guard
from vortex.symbols import Expr, ExpressionError

SIZES = {
    "block_size": (4, 8, 16, 32, 64, 128),
    "head_dim": (16, 32, 64, 80, 96, 112, 128, 192, 256),
    "group": (1, 2, 3, 4, 5, 6, 7, 8, 12, 16),
    "kv_lora_rank": (128, 192, 256, 512),
    "qk_rope_head_dim": (16, 32, 64, 96),
}
TOGETHER = (
    {"block_size": 64, "head_dim": 96, "group": 7, "kv_lora_rank": 192, "qk_rope_head_dim": 96},
    {"block_size": 8, "head_dim": 64, "group": 2, "kv_lora_rank": 128, "qk_rope_head_dim": 32},
)
MAX_OPS = 64
"""Larger flows are traced again at one other value of each symbol only."""


def hidden_guards(graph: FlowGraph, run: Callable[[Geometry], FlowGraph]) -> set[str]:
    """Guards, besides those of the graph, without which it would stand for sizes at which `run` gives
    another one."""
    symbols = SYMBOLS[graph.kind]
    found: set[str] = set()
    for other, changed in _probes(graph):
        if not _admits(graph, found, other):
            continue
        traced = _attempt(run, other)
        if traced is not None and _numbers(traced, other) == _numbers(graph, other):
            continue
        expected = _attempt(graph.instantiate, other)
        if expected is None:  # the graph itself says that it does not serve these sizes
            continue
        if traced is not None and _numbers(traced.canonical(), other) == _numbers(expected, other):
            continue
        if traced is None and len(changed) == 1 and other != _main(graph.traced_at, changed[0]):
            found.add(_guard(changed[0], "!=", other.bindings()[changed[0]]))
            continue
        fixed = changed if len(changed) == 1 else symbols
        found |= {_guard(name, "==", graph.traced_at.bindings()[name]) for name in fixed}
    return found


def _probes(graph: FlowGraph) -> Iterator[tuple[Geometry, tuple[str, ...]]]:
    """Geometries to trace at, with the symbols that differ from the first trace."""
    at, symbols = graph.traced_at, SYMBOLS[graph.kind]
    small = len(graph.cache) + len(graph.indexer) <= MAX_OPS
    for name in symbols:
        yield _main(at, name), (name,)
        for value in SIZES[name] if small else ():
            if value != at.bindings()[name]:
                yield _at(at, {name: value}), (name,)
    for sizes in TOGETHER if small else ():
        yield _at(at, {name: sizes[name] for name in symbols}), symbols


def _main(at: Geometry, name: str) -> Geometry:
    """The other value that every flow is tried at."""
    value = at.bindings()[name]
    return _at(at, {name: value * 2 if value <= 64 else value // 2})


def _at(geometry: Geometry, sizes: Mapping[str, int]) -> Geometry:
    values = {**vars(geometry), **sizes}
    if geometry.kv_lora_rank:
        values["head_dim"] = values["kv_lora_rank"] + values["qk_rope_head_dim"]
    return Geometry(**values)


def _guard(name: str, op: str, value: int) -> str:
    return str(Guard.of(Expr.of(name), op, Expr.of(value)))


def _admits(graph: FlowGraph, found: set[str], other: Geometry) -> bool:
    """Whether the guards known so far let the graph stand for these sizes."""
    bindings = {name: other.bindings()[name] for name in SYMBOLS[graph.kind]}
    try:
        return all(Guard.parse(text, bindings).holds(bindings) for text in {*graph.guards, *found})
    except (ExpressionError, ZeroDivisionError):
        return False


def _attempt(make: Callable[[Geometry], FlowGraph], other: Geometry) -> FlowGraph | None:
    try:
        return make(other)
    except (VortexError, GuardError):
        return None


def _numbers(graph: FlowGraph, at: Geometry) -> object:
    """The graph with numbers for all sizes."""
    bindings = at.bindings()
    fields = [(f.name, f.format, f.rows.evaluate(bindings), f.cols.evaluate(bindings)) for f in graph.fields]
    nodes = []
    for stage, node in graph.nodes():
        attrs = [(name, _plain(value, bindings)) for name, value in node.attrs]
        nodes.append((stage, node.op, attrs, node.inputs, node.output))
    return fields, nodes


def _plain(value: Attr, bindings: Mapping[str, int]) -> object:
    if isinstance(value, tuple):
        return tuple(_plain(item, bindings) for item in value)
    return value.evaluate(bindings) if isinstance(value, Dim) else value
