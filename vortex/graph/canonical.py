"""The canonical form of a graph: the same algorithm always gives the same graph.

Every value gets a key that hashes how it is computed: the op, its effective attributes, the keys of its
operands (sorted where the op is commutative). Equal keys are equal values, so duplicates merge; what the
selection does not depend on is never visited; order and names follow from the visit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vortex.graph.build import GraphBuilder
from vortex.graph.model import Attr, Field, FlowGraph, Format, Node, Ref, RefKind, Stage
from vortex.graph.serial import plain_attr
from vortex.ops import OpDef, find_op


@dataclass(frozen=True)
class _Value:
    """A node in normal form."""

    key: str
    node: Node
    attrs: Mapping[str, Attr]
    inputs: tuple[Ref, ...]


def canonical(graph: FlowGraph) -> FlowGraph:
    """See `FlowGraph.canonical`."""
    return _Canonical(graph).build()


def tensor_keys(graph: FlowGraph) -> dict[Stage, dict[Ref, str]]:
    """A key for each tensor of each stage, which says how it is computed: tensors of different forms of one
    algorithm that have the same key are the same."""
    made = _Canonical(graph)
    return {stage: dict(made.keys(stage)) for stage in Stage}


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _Canonical:
    def __init__(self, graph: FlowGraph) -> None:
        self.graph = graph
        self.fields = {field.name: field for field in graph.fields}
        self.injected = {field.name for field in graph.injected}
        self.cache = self._values(Stage.CACHE, self._before)
        self.writer = {value.node.output: value for value in self.cache if value.node.output is not None}
        # A field that the indexer writes may depend on itself and on others: what is written refines the
        # keys of these fields until no two of them part any more.
        self.written_by_indexer = {node.output for node in graph.indexer if node.output is not None}
        self.saved: dict[str, str] = {}
        self.indexer = self._values(Stage.INDEXER, self.field_key)
        classes = 0
        while self.written_by_indexer and classes < len(self._saved_keys()):
            classes = len(self._saved_keys())
            self.saved = {value.node.output: value.key for value in self.indexer if value.node.output}
            self.indexer = self._values(Stage.INDEXER, self.field_key)
        self.builder = GraphBuilder(graph.kind, graph.traced_at)
        self.names: dict[str, str] = {}  # field key -> canonical name

    def _values(self, stage: Stage, field_key: Callable[[str], str]) -> list[_Value]:
        values: list[_Value] = []

        def key(ref: Ref) -> str:
            if ref.kind is RefKind.NODE:
                return values[ref.node].key
            return "q" if ref.kind is RefKind.QUERY else field_key(ref.name)

        for node in _without_reads_of_saves(self.graph.program(stage)):
            op = find_op(stage, node.op)
            attrs, inputs = _normal(op, node, key)
            saves = self.fields[node.output] if node.output is not None and op.side_effect else None
            target = field_key(saves.name) if saves is not None else ""
            # A Fill is as large as its field. How the sizes that a Save writes are spelled has no effect.
            filled = op.writes_field and not op.side_effect
            shape = [str(node.type.rows), str(node.type.cols)] if filled else []
            parts = [
                node.op,
                {name: plain_attr(value) for name, value in attrs.items()},
                [key(ref) for ref in inputs],
            ]
            values.append(_Value(_digest(*parts, target, shape), node, attrs, inputs))
        return values

    def _saved_keys(self) -> set[str]:
        return {value.key for value in self.indexer if value.node.output}

    def _before(self, name: str) -> str:
        """The key of a field as the cache program finds it: zeros."""
        return f"cache.{name}" if name in self.injected else self._zeros(self.fields[name])

    def _zeros(self, field: Field) -> str:
        return _digest("field", *_shape(field))

    def field_key(self, name: str) -> str:
        """The key of a field as the indexer finds it: its dims and what writes it."""
        if name in self.injected:
            return f"cache.{name}"
        field, writer = self.fields[name], self.writer.get(name)
        saved = self.saved.get(name) or ("saved" if name in self.written_by_indexer else "")
        if writer is None and not saved:
            return self._zeros(field)
        return _digest("field", *_shape(field), writer.key if writer else "", saved)

    def build(self) -> FlowGraph:
        roots = [value for value in self.indexer if find_op(Stage.INDEXER, value.node.op).claims_output]
        effects = [value for value in self.indexer if find_op(Stage.INDEXER, value.node.op).side_effect]
        roots += sorted(effects, key=lambda value: value.key)
        # Nothing reads what a Save returns, so all of them come last: no read of a field stands after one.
        scoring = sorted(_visit(roots, self.indexer), key=lambda value: value.node.output is not None)
        fields = self._declare(scoring)
        writers = [self.writer[name] for name in fields if name in self.writer]
        summary = _visit(writers, self.cache)
        self._declare_zeros(summary)
        self._emit(Stage.CACHE, summary, self._outputs(fields), self._before)
        self._emit(Stage.INDEXER, scoring, {}, self.field_key)
        return self.builder.finish(self.graph.guards)

    def keys(self, stage: Stage) -> Iterator[tuple[Ref, str]]:
        """See `tensor_keys`."""
        if stage is Stage.INDEXER:
            yield Ref.query(), "q"
        for name in (*self.injected, *self.fields):
            yield Ref.field(name), self.field_key(name)
        for index, value in enumerate(self.cache if stage is Stage.CACHE else self.indexer):
            yield Ref.at(index), value.key

    def _declare(self, scoring: Iterable[_Value]) -> list[str]:
        """Declares the fields that the live indexer uses, in the order of use; returns one original name
        for each."""
        kept = []
        for value in scoring:
            used = [ref.name for ref in value.inputs if ref.kind is RefKind.FIELD]
            if value.node.output is not None:
                used.append(value.node.output)
            for name in used:
                if name not in self.injected and self._name(self.field_key(name), self.fields[name]):
                    kept.append(name)
        return kept

    def _declare_zeros(self, summary: Iterable[_Value]) -> None:
        for value in summary:
            for ref in value.inputs:
                if ref.kind is RefKind.FIELD and ref.name not in self.injected:
                    self._name(self._before(ref.name), self.fields[ref.name])

    def _name(self, key: str, field: Field) -> bool:
        """Names and declares the field with this key, unless it is; says whether it was new."""
        if key in self.names:
            return False
        self.names[key] = f"f{len(self.names)}"
        self.builder.declare(self.names[key], (field.rows, field.cols), field.format)
        return True

    def _outputs(self, fields: Iterable[str]) -> dict[str, list[str]]:
        """Key of a cache value -> canonical names of the fields that hold it (several only if their dims
        are spelled differently)."""
        outputs: dict[str, list[str]] = {}
        for name in fields:
            if name in self.writer:
                outputs.setdefault(self.writer[name].key, []).append(self.names[self.field_key(name)])
        return outputs

    def _emit(
        self,
        stage: Stage,
        values: Iterable[_Value],
        outputs: dict[str, list[str]],
        field_key: Callable[[str], str],
    ) -> None:
        program = self.cache if stage is Stage.CACHE else self.indexer
        placed: dict[str, Ref] = {}
        for value in values:
            inputs = []
            for ref in value.inputs:
                if ref.kind is RefKind.NODE:
                    ref = placed[program[ref.node].key]
                elif ref.kind is RefKind.FIELD and ref.name not in self.injected:
                    ref = Ref.field(self.names[field_key(ref.name)])
                inputs.append(ref)
            saved = value.node.output if stage is Stage.INDEXER else None
            targets: Sequence[str | None] = outputs.get(value.key) or [
                self.names[self.field_key(saved)] if saved else None
            ]
            for target in targets:
                placed[value.key] = self.builder.add(stage, value.node.op, value.attrs, inputs, target)


def _without_reads_of_saves(program: Sequence[Node]) -> Iterator[Node]:
    """The nodes, reading the value that a Save has written, and not what the Save returns."""

    def resolved(ref: Ref) -> Ref:
        while ref.kind is RefKind.NODE and (
            program[ref.node].op == "Save"
            or (program[ref.node].op == "Load" and program[ref.node].inputs[0].kind is RefKind.NODE)
        ):
            ref = program[ref.node].inputs[0]
        return ref

    for node in program:
        yield replace(node, inputs=tuple(resolved(ref) for ref in node.inputs))


def _shape(field: Field) -> list[str]:
    """What distinguishes the declarations of fields."""
    per_block = field.format is Format.PAGED
    return [str(field.rows), str(field.cols), *([] if per_block else [field.format.name])]


def _normal(op: OpDef, node: Node, key: Callable[[Ref], str]) -> tuple[Mapping[str, Attr], tuple[Ref, ...]]:
    """Attributes and operands with everything that has no effect removed: ignored arguments, the order of
    operands."""
    ignored = {param.name for param in op.params if param.ignored}
    defaults = {param.name: param.coerce(param.default, op.stages[0]) for param in op.params if param.ignored}
    attrs: Mapping[str, Attr] = {
        name: defaults[name] if name in ignored else value for name, value in node.attrs
    }
    if op.swap is None:
        return attrs, node.inputs

    def order(form: tuple[Mapping[str, Attr], tuple[Ref, ...]]) -> tuple[list[str], str]:
        return [key(ref) for ref in form[1]], json.dumps([plain_attr(value) for value in form[0].values()])

    return min((attrs, node.inputs), (op.swap(attrs), node.inputs[::-1]), key=order)


def _visit(roots: Iterable[_Value], program: Sequence[_Value]) -> list[_Value]:
    """What the roots depend on, operands before their users, each value once."""
    done: dict[str, _Value] = {}
    stack = list(reversed(list(roots)))
    while stack:
        value = stack[-1]
        if value.key in done:
            stack.pop()
            continue
        waiting = [program[ref.node] for ref in value.inputs if ref.kind is RefKind.NODE]
        waiting = [operand for operand in waiting if operand.key not in done]
        if waiting:
            stack.extend(reversed(waiting))
        else:
            done[value.key] = value
            stack.pop()
    return list(done.values())
