"""Runs a flow's three methods on metadata tensors and records what they do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from vortex.abs import ContextBase
from vortex.dims import Dim, recording
from vortex.errors import FlowAdvice, FlowTypeError, GraphError, shown
from vortex.flow.calls import call, class_line, first_line
from vortex.flow.vtensor import Opaque, Output, vTensor
from vortex.flow.where import user_line
from vortex.graph.build import DECLARED_IN, SYMBOLS, GraphBuilder, symbols
from vortex.graph.geometry import Geometry
from vortex.graph.limits import check_size
from vortex.graph.model import FlowGraph, Format, Ref, Stage, TensorType
from vortex.guards import Guard

if TYPE_CHECKING:
    from vortex.flow.base import FlowBase
    from vortex.flow.views import Op
    from vortex.ops import OpDef


class TraceContext(Opaque, ContextBase):
    """The `ctx` of a trace."""


class CacheView(Mapping[str, vTensor]):
    """`cache[name]` for one stage of a trace."""

    def __init__(self, trace: Trace, stage: Stage) -> None:
        self._trace, self._stage = trace, stage

    def __getitem__(self, name: str) -> vTensor:
        if not isinstance(name, str):
            self._refuse(f"cache[{shown(name)}] is no field", f"The fields are {', '.join(map(repr, self))}")
        try:
            found = self._trace.builder.field_type(self._stage, name)
        except FlowTypeError as error:
            raise error.at(line=user_line()) from None
        return vTensor(self._trace, self._stage, f"cache[{name!r}]", found, None, field=name)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._trace.builder.fields, *self._trace.builder.injected])

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __len__(self) -> int:
        return len(self._trace.builder.fields) + len(self._trace.builder.injected)

    def __setitem__(self, name: str, value: object) -> None:
        write = {
            Stage.CACHE: "Give the op the field as its output: op(x, cache[...], loc=loc, ctx=ctx)",
            Stage.INDEXER: "Write fields in forward_cache, or with Save()(x, cache[...], ctx=ctx)",
        }
        self._refuse(f"cache[{shown(name)}] cannot be assigned", write[self._stage])

    def __delitem__(self, name: str) -> None:
        self._refuse(f"cache[{shown(name)}] cannot be deleted", "Leave it out of what create_cache returns")

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        advice = f'Write cache["{attribute}"]' if attribute in self else "Work on its tensors, cache[...]"
        self._refuse(f"cache has no attribute {attribute!r}: it holds the fields by name", advice)

    def _refuse(self, message: str, hint: str) -> NoReturn:
        raise FlowTypeError(message, line=user_line(), hint=hint)


class Trace:
    """One trace of one flow object: the graph under construction, and which op instances have been used."""

    def __init__(self, kind: str, geometry: Geometry) -> None:
        self.builder = GraphBuilder(kind, geometry)
        self.stage = Stage.CACHE
        self.over = False
        self.used: dict[int, tuple[object, int | None]] = {}
        self.constants: dict[int, tuple[object, vTensor]] = {}
        self.unpassed: dict[tuple[str, ...], list[str]] = {}
        """The calls that did not pass on `loc` or `ctx`, by what they left out."""

    def constant(self, instance: Op) -> Any:
        """The tensor of a Parameter that is passed as an operand, recorded when it is first used; any other
        op instance is returned as it is."""
        if not instance.definition.constant:
            return instance
        if id(instance) not in self.constants:
            made = self.record(instance, instance.stage, instance.definition, instance.attrs, [], None)
            self.constants[id(instance)] = (instance, made)
        return self.constants[id(instance)][1]

    def record(
        self,
        instance: object,
        stage: Stage,
        definition: OpDef,
        attrs: Mapping[str, Any],
        operands: list[vTensor],
        output: str | None,
    ) -> vTensor:
        """Appends one op call."""
        line = user_line()
        earlier = self.used.get(id(instance))
        if earlier is not None:
            raise FlowTypeError(
                f"this instance is called twice (first in line {earlier[1]})",
                op=definition.name,
                line=line,
                hint="Create one instance per call site in __init__",
            )
        self.used[id(instance)] = (instance, line)
        inputs = [self.resolve(operand, stage) for operand in operands]
        types = tuple(operand._type for operand in operands)
        try:
            ref = self.builder.append(stage, definition, attrs, inputs, types, output, line)
        except FlowTypeError as error:
            shapes = tuple(
                f"{name} {operand._type.text(stage)}"
                for name, operand in zip(definition.operands, operands, strict=False)
            )
            raise error.at(op=definition.name, line=line, shapes=shapes) from None
        found = self.builder.programs[stage][ref.node].type
        return vTensor(self, stage, f"{definition.name} of line {line}", found, ref, field=output)

    def notes(self) -> list[str]:
        """What is legal and not as documented, one sentence each."""
        found = []
        for names, calls in self.unpassed.items():
            form = ", ".join(f"{name}={name}" for name in names)
            where = ", ".join(calls[:4]) + (f" and {len(calls) - 4} more" if len(calls) > 4 else "")
            found.append(f"ops are called without {' and '.join(names)}: {where}. Write op(..., {form})")
        return found

    def resolve(self, operand: vTensor, stage: Stage) -> Ref:
        """The graph's name for an operand: for a field, what it holds at this point of the program."""
        if operand._field is not None:
            return self.builder.read(stage, operand._field)
        assert operand._ref is not None
        return operand._ref


def run(flow: FlowBase, geometry: Geometry, notes: list[str] | None = None) -> FlowGraph:
    """One trace of `flow`. What is legal and not as documented is added to `notes`. Raises FlowTypeError;
    GraphError for what is too large."""
    cls, kind = type(flow), flow.kind
    try:
        trace, sizes = Trace(kind, geometry), symbols(kind, geometry)
    except FlowTypeError as error:
        raise error.in_line(class_line(cls)) from None
    guards = dict[Guard, None]()
    arguments = tuple(sizes[name] for name in SYMBOLS[kind] if name != "group")
    for format, method in DECLARED_IN.items():
        line = first_line(cls, method)
        with recording(guards):
            fields = call(flow, method, arguments, sizes)
        if not isinstance(fields, dict):
            wanted = f"{method} must return a dict of field name to (rows, cols)"
            raise FlowTypeError(
                f"{wanted}, got {shown(fields)}",
                line=line,
                hint='Write return {"name": (1, head_dim)}',
            )
        for name, dims in fields.items():
            try:
                trace.builder.declare(name, dims, format)
            except FlowTypeError as error:
                raise error.in_line(line) from None
    loc = Opaque("loc", "An op finds its block by it: op(x, output, loc=loc, ctx=ctx)")
    context = TraceContext("ctx", "Sizes are in x.shape, or kept on self by create_cache")
    with recording(guards):
        call(flow, "forward_cache", (CacheView(trace, Stage.CACHE), loc, context), sizes)
    trace.stage = Stage.INDEXER
    query = vTensor(trace, Stage.INDEXER, "q", trace.builder._query, Ref.query())
    output = Output(trace, Stage.INDEXER, "o", TensorType(Format.RAGGED, Dim(1), Dim(1)), None)
    with recording(guards):
        call(flow, "forward_indexer", (query, output, CacheView(trace, Stage.INDEXER), context), sizes)
    trace.over = True
    try:
        graph = trace.builder.finish([str(guard) for guard in guards])
    except FlowTypeError as error:
        raise error.in_line(first_line(cls, "forward_indexer")) from None
    _check_size(graph, first_line(cls, "create_cache"))
    if notes is not None:
        notes += [f"{cls.__name__}: {note}" for note in trace.notes()]
    return graph


def _check_size(graph: FlowGraph, declared: int | None) -> None:
    """`check_size`, with the line where the fields are declared for those that are too large."""
    try:
        check_size(graph)
    except GraphError as error:
        if error.line is not None:
            raise
        raise GraphError(f"line {declared}: {error}").in_line(declared) from None


def trace(flow: FlowBase, geometry: Geometry) -> FlowGraph:
    """The graph of `flow`, for every geometry that satisfies its guards. See `vortex.flow.probe` for what
    Python hides from a trace. The object keeps the attributes that tracing at `geometry` gave it."""
    from vortex.flow.probe import hidden_guards

    notes: list[str] = []
    graph = run(flow, geometry, notes)
    for note in notes:
        warnings.warn(note, FlowAdvice, stacklevel=3)
    kept = dict(vars(flow))
    try:
        hidden = hidden_guards(graph, lambda other: run(flow, other))
    finally:
        vars(flow).clear()
        vars(flow).update(kept)
    if not hidden:
        return graph
    guards = tuple(sorted({*graph.guards, *hidden}))
    return FlowGraph(graph.kind, graph.fields, graph.cache, graph.indexer, guards, traced_at=geometry)
