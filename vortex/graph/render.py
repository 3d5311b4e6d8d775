"""A graph as a flow file that a person can read; tracing the file gives a graph with the same hash."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vortex.errors import GraphError
from vortex.graph.build import SYMBOLS, attr_symbols
from vortex.graph.model import Attr, Field, FlowGraph, Format, Node, Ref, RefKind, Stage
from vortex.graph.naming import Names, flow_class_name
from vortex.guards import Guard
from vortex.ops import find_op
from vortex.ops.params import AxisParam, Param
from vortex.weights import MAX_INLINE

MAX_FORMULA = 160
_FLOW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")


def render_flow(graph: FlowGraph, name: str) -> str:
    """The source of a flow file that registers `graph` as `name`. Raises GraphError for a name that is no
    plain word, and for constants too large for a source."""
    if not _FLOW_NAME.fullmatch(name):
        raise GraphError(
            f"a flow name is letters, digits, '_', '-' and '.', at most 100 of them, got {name[:120]!r}"
        )
    if sum(weight.numel for weight in graph.weights()) > MAX_INLINE:
        raise GraphError(f"the graph's constants have more than {MAX_INLINE} numbers, too many for a source")
    return _Render(graph.canonical(), name).text()


class _Render:
    def __init__(self, graph: FlowGraph, name: str) -> None:
        self.graph, self.name = graph, name
        self.names = Names(graph)
        self.sizes = [symbol for symbol in SYMBOLS[graph.kind] if symbol != "group"]
        self.guards = [Guard.parse(text, SYMBOLS[graph.kind]) for text in graph.guards]

    def text(self) -> str:
        base = "vFlowMLA" if self.graph.kind == "mla" else "vFlow"
        lines = [
            f'"""{self.summary()}"""'
            if len(self.summary()) < 100
            else f'"""{self.name}: rendered from its graph."""',
            "",
            "import torch",
            "",
            "from vortex_torch.abs import ContextBase",
            *self.imports(Stage.CACHE, "C"),
            f"from vortex_torch.flow import register, {base}",
            *self.imports(Stage.INDEXER, ""),
            "",
            "",
            f"@register({self.name!r})".replace("'", '"'),
            f"class {flow_class_name(self.name)}({base}):",
            f'    """score = {self.formula()}"""',
            "",
            *self.init(),
            "",
            *self.create_cache(),
            "",
            *self.forward_cache(),
            "",
            *self.forward_indexer(),
        ]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        ops = sum(1 for _ in self.graph.nodes())
        return f"{self.name}: {ops} ops, graph {self.graph.hash[:12]}."

    def formula(self) -> str:
        """The score as nested calls, cut where it would not fit a line or two."""
        nodes = self.graph.indexer

        def spell(ref: Ref, depth: int) -> str:
            if ref.kind is not RefKind.NODE:
                return self.names.operand(Stage.INDEXER, ref)
            node = nodes[ref.node]
            inner = ", ".join(spell(i, depth + 1) for i in node.inputs) if depth < 8 else "..."
            return f"{node.op}({inner})"

        text = " | ".join(spell(pick.score, 0) for pick in self.graph.selections)
        return text if len(text) <= MAX_FORMULA else text[:MAX_FORMULA].rsplit(" ", 1)[0] + " ..."

    def imports(self, stage: Stage, prefix: str) -> list[str]:
        ops = sorted({node.op for node in self.graph.program(stage)})
        spelled = [f"{op} as {prefix}{op}" if prefix else op for op in ops]
        line = f"from vortex_torch.{stage} import {', '.join(spelled)}"
        if len(line) <= 100:
            return [line] if ops else []
        return [f"from vortex_torch.{stage} import (", *(f"    {word}," for word in spelled), ")"]

    def init(self) -> list[str]:
        """Op instances; those with symbolic arguments have to wait for the sizes."""
        lines = ["    def __init__(self):", "        super().__init__()"]
        for stage, index, node in self.ops():
            if not _symbols(node):
                lines.append(f"        {self.creation(stage, index, node)}")
        return lines

    def ops(self) -> Iterable[tuple[Stage, int, Node]]:
        for stage in Stage:
            for index, node in enumerate(self.graph.program(stage)):
                yield stage, index, node

    def creation(self, stage: Stage, index: int, node: Node) -> str:
        prefix = "C" if stage is Stage.CACHE else ""
        arguments = self.arguments(stage, node).replace("\n", "\n            ")
        return f"self.{self.names.op(stage, index)} = {prefix}{node.op}({arguments})"

    def arguments(self, stage: Stage, node: Node) -> str:
        attrs, words = dict(node.attrs), []
        params = find_op(stage, node.op).params
        last_required = max((at for at, param in enumerate(params) if param.required), default=-1)
        for at, param in enumerate(params):
            if at <= last_required:
                words.append(param.source(attrs[param.name]))
                continue
            shown = isinstance(param, AxisParam) or attr_symbols(
                attrs[param.name]
            )  # an axis is worth reading
            if shown or attrs[param.name] != _default(param, stage):
                words.append(f"{param.name}={param.source(attrs[param.name])}")
        return ", ".join(words)

    def create_cache(self) -> list[str]:
        lines = [self.header("create_cache")]
        lines += [f"        self.{size} = {size}" for size in self.late_sizes()]
        lines += [f"        assert {guard}" for guard in self.guards if "group" not in guard.symbols()]
        for stage, index, node in self.ops():
            if _symbols(node) and "group" not in _symbols(node):
                lines.append(f"        {self.creation(stage, index, node)}")
        lines += self.declarations(Format.PAGED)
        if any(field.format is Format.SLOTTED for field in self.graph.fields):
            lines += ["", self.header("create_request_cache"), *self.declarations(Format.SLOTTED)]
        return lines

    def header(self, method: str) -> str:
        return f"    def {method}(self, {', '.join(f'{size}: int' for size in self.sizes)}):"

    def declarations(self, format: Format) -> list[str]:
        entries = [self.declaration(field) for field in self.graph.fields if field.format is format]
        if sum(map(len, entries)) < 80:
            return [f"        return {{{', '.join(entries)}}}"]
        return ["        return {", *(f"            {entry}," for entry in entries), "        }"]

    def declaration(self, field: Field) -> str:
        return f'"{self.names.field(field.name)}": ({field.rows}, {field.cols})'

    def forward_cache(self) -> list[str]:
        lines = [
            "    def forward_cache(",
            "        self, cache: dict[str, torch.Tensor], loc: torch.Tensor, ctx: ContextBase",
            "    ):",
        ]
        for index, node in enumerate(self.graph.cache):
            operands = [self.operand(Stage.CACHE, ref) for ref in node.inputs]
            if node.output is not None:
                operands.append(f'cache["{self.names.field(node.output)}"]')
            call = f"self.{self.names.op(Stage.CACHE, index)}({', '.join([*operands, 'loc=loc', 'ctx=ctx'])})"
            lines.append(self.statement(Stage.CACHE, index, call))
        return lines if self.graph.cache else [*lines, "        pass"]

    def forward_indexer(self) -> list[str]:
        arguments = "q: torch.Tensor, o: torch.Tensor, cache: dict[str, torch.Tensor], ctx: ContextBase"
        lines = [
            "    def forward_indexer(",
            f"        self, {arguments}",
            "    ):",
        ]
        late = [guard for guard in self.guards if "group" in guard.symbols()]
        waiting = [(i, node) for i, node in enumerate(self.graph.indexer) if "group" in _symbols(node)]
        if late or waiting:
            lines.append("        group = q.shape[1]")
            lines += [f"        {size} = self.{size}" for size in self.late_sizes()]
        lines += [f"        assert {guard}" for guard in late]
        lines += [f"        {self.creation(Stage.INDEXER, index, node)}" for index, node in waiting]
        for index, node in enumerate(self.graph.indexer):
            op = find_op(Stage.INDEXER, node.op)
            if op.constant:
                continue
            operands = [self.operand(Stage.INDEXER, ref) for ref in node.inputs]
            if op.claims_output:
                operands.append("o")
            elif node.output is not None:
                operands.append(f'cache["{self.names.field(node.output)}"]')
            call = f"self.{self.names.op(Stage.INDEXER, index)}({', '.join([*operands, 'ctx=ctx'])})"
            lines.append(self.statement(Stage.INDEXER, index, call))
        return lines

    def late_sizes(self) -> list[str]:
        """Sizes, besides the group, that expressions in forward_indexer use. `create_cache` keeps them."""
        late = [guard.symbols() for guard in self.guards] + [_symbols(node) for node in self.graph.indexer]
        used = frozenset().union(*(symbols for symbols in late if "group" in symbols))
        return [size for size in self.sizes if size in used]

    def statement(self, stage: Stage, index: int, call: str) -> str:
        node = self.graph.program(stage)[index]
        shape = node.type.text(stage)
        if any(Ref.at(index) in later.inputs for later in self.graph.program(stage)[index + 1 :]):
            return f"        {self.names.value(stage, index)} = {call}  # {shape}"
        return f"        {call}"

    def operand(self, stage: Stage, ref: Ref) -> str:
        if ref.kind is RefKind.FIELD:
            return f'cache["{self.names.field(ref.name)}"]'
        if ref.kind is RefKind.QUERY:
            return "q"
        name = self.names.value(stage, ref.node)
        return f"self.{name}" if find_op(stage, self.graph.program(stage)[ref.node].op).constant else name


def _default(param: Param, stage: Stage) -> Attr:
    return param.coerce(param.default, stage)


def _symbols(node: Node) -> frozenset[str]:
    return frozenset().union(*(attr_symbols(value) for _, value in node.attrs))
