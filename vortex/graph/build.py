"""The one way to make a graph: add fields and ops; every rule of the language is checked as they come.

The tracer, the JSON reader, canonicalisation and graph mutation all build through here, so a FlowGraph is
well-typed wherever it came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from vortex.dims import Dim
from vortex.errors import FlowTypeError, shown, unknown
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, Field, FlowGraph, Format, Node, Ref, RefKind, Stage, TensorType
from vortex.ops import LARGEST_DIM, OpDef, find_op

MAX_OPS, MAX_FIELDS = 512, 64
RESERVED = {"gqa": ("k", "v"), "mla": ("k", "v", "kv_c", "k_pe", "latent")}
SYMBOLS = {
    "gqa": ("block_size", "head_dim", "group"),
    "mla": ("block_size", "kv_lora_rank", "qk_rope_head_dim", "group"),
}
DECLARED_IN = {Format.PAGED: "create_cache", Format.SLOTTED: "create_request_cache"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@lru_cache(maxsize=256)
def symbols(kind: str, geometry: Geometry) -> Mapping[str, Dim]:
    """The sizes that a flow of this kind is traced with."""
    bindings = geometry.bindings()
    missing = [name for name in SYMBOLS[kind] if name not in bindings]
    if missing:
        raise FlowTypeError(
            f"an MLA flow needs {' and '.join(missing)}, which this model has not",
            hint="Write a vFlow over k and v, or trace it with Geometry.mla(...)",
        )
    return MappingProxyType({name: Dim.parse(name, bindings) for name in SYMBOLS[kind]})


@lru_cache(maxsize=256)
def injected_fields(kind: str, geometry: Geometry) -> tuple[Field, ...]:
    size = symbols(kind, geometry)
    if kind == "mla":
        return (Field("latent", size["block_size"], Dim.of(size["kv_lora_rank"] + size["qk_rope_head_dim"])),)
    return tuple(Field(name, size["block_size"], size["head_dim"]) for name in ("k", "v"))


@lru_cache(maxsize=256)
def query_type(kind: str, geometry: Geometry) -> TensorType:
    size = symbols(kind, geometry)
    features = size["kv_lora_rank"] + size["qk_rope_head_dim"] if kind == "mla" else size["head_dim"]
    return TensorType(Format.BATCHED, size["group"], Dim.of(features))


class GraphBuilder:
    """Collects one flow. Every method raises FlowTypeError for what the language does not allow."""

    def __init__(self, kind: str = "gqa", geometry: Geometry | None = None) -> None:
        if kind not in SYMBOLS:
            raise FlowTypeError(unknown("kind of flow", str(kind), SYMBOLS))
        self.kind, self.geometry = kind, geometry or Geometry()
        self.injected = {field.name: field for field in injected_fields(kind, self.geometry)}
        self.fields: dict[str, Field] = {}
        self.programs: dict[Stage, list[Node]] = {Stage.CACHE: [], Stage.INDEXER: []}
        self.writers: dict[tuple[Stage, str], Ref] = {}
        self.selector: Node | None = None
        self._query = query_type(kind, self.geometry)

    def declare(self, name: object, dims: object, format: Format = Format.PAGED) -> Field:
        """Declares an auxiliary field of `dims` = (rows, cols) per block, or SLOTTED: per row."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise FlowTypeError(
                f"a field name must be an identifier of at most 64 characters, got {shown(name)}",
                hint="Use letters, digits and _",
            )
        if name in RESERVED[self.kind]:
            raise FlowTypeError(
                f"{DECLARED_IN[format]} must not declare '{name}' key: the engine provides "
                f"{', '.join(self.injected)}",
                hint=f"Remove it from the returned dict; {self._provided()}",
            )
        if name in self.fields:
            raise FlowTypeError(f"the field {name!r} is declared twice", hint="Choose another name")
        if len(self.fields) >= MAX_FIELDS:
            raise FlowTypeError(
                f"a flow has at most {MAX_FIELDS} fields",
                hint="Put vectors of one size into one field of more rows",
            )
        if not isinstance(dims, (tuple, list)) or len(dims) != 2:
            raise FlowTypeError(
                f"field {name!r} needs two dims, (rows, cols), got {shown(dims)}",
                hint=f'Write "{name}": (1, head_dim)',
            )
        for size in dims:
            self._check_dim(size, f"the dims of field {name!r}", shown(dims))
        field = Field(name, Dim.of(dims[0]), Dim.of(dims[1]), format)
        self.fields[name] = field
        return field

    def _check_dim(self, size: object, what: str, dims: str) -> None:
        """Raises FlowTypeError unless `size` can be a dim of a field."""
        if isinstance(size, bool) or not isinstance(size, int):
            hint = "Divide sizes with //" if isinstance(size, float) else "Write sizes such as (1, head_dim)"
            raise FlowTypeError(f"{what} must be integers, got {dims}", hint=hint)
        if Dim.of(size).hint < 1:
            raise FlowTypeError(
                f"{what} must be at least 1, got {dims}", hint="Write sizes such as (1, head_dim)"
            )
        if Dim.of(size).hint > LARGEST_DIM:
            raise FlowTypeError(f"{what} are larger than any real size", hint="Keep less than k of a block")
        if "group" in Dim.of(size).expr.symbols():
            raise FlowTypeError(
                f"{what} depend on the query, which the cache stage has not seen",
                hint="Reduce over query heads first",
            )

    def _provided(self) -> str:
        """How the engine's fields are read."""
        if self.kind == "mla":
            return "read cache['latent'], which is [kv_c | k_pe]"
        return "read cache['k'] and cache['v']"

    def field_type(self, stage: Stage, name: str) -> TensorType:
        field = self.fields.get(name) or self.injected.get(name)
        if field is None:
            known = [*self.fields, *self.injected]
            reserved = any(name in names for names in RESERVED.values())
            raise FlowTypeError(
                unknown("cache field", name, known),
                hint=f"The engine has no such field here: {self._provided()}"
                if reserved
                else "Declare it in create_cache",
            )
        if field.format is Format.SLOTTED and stage is Stage.CACHE:
            raise FlowTypeError(
                f"the request field {name!r} cannot be used in the cache stage",
                hint="Read it in forward_indexer, and write it there with Save()",
            )
        return field.type

    def type_of(self, stage: Stage, ref: Ref) -> TensorType:
        if ref.kind is RefKind.FIELD:
            return self.field_type(stage, ref.name)
        if ref.kind is RefKind.QUERY:
            if stage is Stage.CACHE:
                raise FlowTypeError("the cache stage has no query", hint="Combine with q in forward_indexer")
            return self._query
        program = self.programs[stage]
        if not 0 <= ref.node < len(program):
            raise FlowTypeError(f"operand {ref.node} is not an earlier op of the {stage} program")
        if find_op(stage, program[ref.node].op).claims_output:
            raise FlowTypeError("the output of the flow is not an operand")
        return program[ref.node].type

    def read(self, stage: Stage, name: str) -> Ref:
        """What `cache[name]` means at this point: the field, or the value that this program has already
        written to it."""
        self.field_type(stage, name)
        return self.writers.get((stage, name), Ref.field(name))

    def add(
        self,
        stage: Stage,
        op: str,
        attrs: Mapping[str, object] | None = None,
        inputs: Sequence[Ref] = (),
        output: str | None = None,
        line: int | None = None,
    ) -> Ref:
        """Appends an op and returns a reference to its result. `output` is the field that it writes."""
        try:
            definition = find_op(stage, op)
            bound = definition.bind((), attrs or {}, stage)
            types = tuple(self.type_of(stage, ref) for ref in inputs)
            return self.append(stage, definition, bound, inputs, types, output, line)
        except FlowTypeError as error:
            raise error.at(op=op, line=line) from None

    def append(
        self,
        stage: Stage,
        definition: OpDef,
        attrs: Mapping[str, Attr],
        inputs: Sequence[Ref],
        types: tuple[TensorType, ...],
        output: str | None,
        line: int | None,
    ) -> Ref:
        """`add` for coerced attributes and known operand types."""
        if sum(map(len, self.programs.values())) >= MAX_OPS:
            raise FlowTypeError(
                f"a flow has at most {MAX_OPS} ops", hint="Ops created in a loop count once for each turn"
            )
        if stage is Stage.CACHE and any("group" in attr_symbols(value) for value in attrs.values()):
            raise FlowTypeError(
                "an argument depends on the query, which the cache stage has not seen",
                hint="Sizes of the cache stage are those of create_cache and of cache[...]",
            )
        target = self._target(stage, definition, output)
        found = definition.result(stage, attrs, types, target)
        node = Node(definition.name, tuple(attrs.items()), tuple(inputs), found, output, line)
        if definition.claims_output:
            if self.selector is not None:
                raise FlowTypeError(
                    f"o is claimed twice, first by {_named(self.selector)}",
                    hint="A flow ends in exactly one op that claims o",
                )
            self.selector = node
        self.programs[stage].append(node)
        ref = Ref.at(len(self.programs[stage]) - 1)
        if output is not None:
            self.writers[stage, output] = ref
        return ref

    def _target(self, stage: Stage, definition: OpDef, output: str | None) -> TensorType | None:
        if output is None:
            return None
        if stage is Stage.INDEXER and not definition.side_effect:
            raise FlowTypeError(
                "ops of the indexer do not write fields",
                hint="Write fields in forward_cache, or with vortex.indexer.Save",
            )
        if output in self.injected:
            raise FlowTypeError(
                f"the field {output!r} belongs to the engine",
                hint="Declare a field in create_cache to write to",
            )
        found = self.field_type(stage, output)
        writer = self.writers.get((stage, output))
        if writer is not None:
            raise FlowTypeError(
                f"the field {output!r} is already written by {_named(self.programs[stage][writer.node])}",
                hint="Leave out the output of all but the last op, or declare a second field",
            )
        return found

    def finish(self, guards: Sequence[str] = ()) -> FlowGraph:
        """The graph. Raises FlowTypeError when nothing claims the output."""
        if self.selector is None:
            raise FlowTypeError("nothing claims o", hint="End forward_indexer with topK()(score, o, ctx=ctx)")
        return FlowGraph(
            kind=self.kind,
            fields=tuple(self.fields.values()),
            cache=tuple(self.programs[Stage.CACHE]),
            indexer=tuple(self.programs[Stage.INDEXER]),
            guards=tuple(sorted(set(guards))),
            traced_at=self.geometry,
        )


def attr_symbols(value: Attr) -> frozenset[str]:
    """The symbols that an attribute depends on."""
    if isinstance(value, tuple):
        return frozenset().union(*(attr_symbols(item) for item in value))
    return value.expr.symbols() if isinstance(value, Dim) else frozenset()


def _named(node: Node) -> str:
    return f"{node.op} in line {node.line}" if node.line else node.op
