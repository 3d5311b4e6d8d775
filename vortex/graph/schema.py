"""The JSON document of a graph, strictly: pydantic checks its form, then the builder infers and checks its
meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.graph.build import MAX_FIELDS, MAX_OPS, SYMBOLS, GraphBuilder
from vortex.graph.geometry import Geometry
from vortex.graph.limits import check_size
from vortex.graph.model import FlowGraph, Format, Ref, Stage
from vortex.guards import MAX_GUARDS, Guard
from vortex.ops.params import MAX_LAYERS
from vortex.symbols import MAX_TEXT, ExpressionError
from vortex.weights import MAX_INLINE, Weight, WeightError

Name = Annotated[str, Field(strict=True, max_length=64)]
Size = (
    Annotated[StrictInt, Field(ge=-(2**31), le=2**31)]
    | Annotated[str, Field(strict=True, max_length=MAX_TEXT)]
)
Extent = Annotated[StrictInt, Field(ge=1, le=65536)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SymbolicSize(Part):
    dim: Annotated[str, Field(strict=True, max_length=MAX_TEXT)]


Digest = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]
Base64 = Annotated[str, Field(strict=True, max_length=6 * MAX_INLINE)]


class Array(Part):
    """A constant, whose data is in the document's `weights`."""

    shape: Annotated[list[Extent], Field(min_length=1, max_length=4)]
    sha256: Digest


Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | SymbolicSize | None
Items = Annotated[list[Scalar | Annotated[list[Scalar], Field(max_length=8)]], Field(max_length=MAX_LAYERS)]
AttrValue = Scalar | Array | Items


class FieldPart(Part):
    name: Name
    rows: Size
    cols: Size
    format: Literal["PAGED", "SLOTTED"] = "PAGED"


class NodePart(Part):
    op: Name
    attrs: Annotated[dict[Name, AttrValue], Field(max_length=32)]
    inputs: Annotated[
        list[StrictInt | Annotated[str, Field(strict=True, max_length=80)]], Field(max_length=16)
    ]
    output: Name | None = None
    type: tuple[Name, Size, Size] | None = None
    line: Annotated[StrictInt, Field(ge=1, le=10**7)] | None = None


class Traced(Part):
    block_size: Extent
    head_dim: Extent
    group: Extent
    kv_lora_rank: Annotated[StrictInt, Field(ge=0, le=65536)] = 0
    qk_rope_head_dim: Annotated[StrictInt, Field(ge=0, le=65536)] = 0

    def geometry(self) -> Geometry:
        try:
            return Geometry(**dict(self))
        except ValueError as error:
            raise FlowTypeError(str(error)) from None


class Document(Part):
    version: Literal[1]
    kind: Literal["gqa", "mla"]
    traced_at: Traced
    guards: Annotated[
        list[Annotated[str, Field(strict=True, max_length=2 * MAX_TEXT)]], Field(max_length=MAX_GUARDS)
    ]
    fields: Annotated[list[FieldPart], Field(max_length=MAX_FIELDS)]
    cache: Annotated[list[NodePart], Field(max_length=MAX_OPS)]
    indexer: Annotated[list[NodePart], Field(max_length=MAX_OPS)]
    weights: Annotated[dict[Digest, Base64], Field(max_length=MAX_OPS)] = {}

    def build(self) -> FlowGraph:
        """Raises FlowTypeError, ExpressionError or GraphError."""
        geometry = self.traced_at.geometry()
        builder = GraphBuilder(self.kind, geometry)
        bindings = {name: geometry.bindings()[name] for name in SYMBOLS[self.kind]}
        for field in self.fields:
            dims = (Dim.parse(field.rows, bindings), Dim.parse(field.cols, bindings))
            builder.declare(field.name, dims, Format[field.format])
        for stage, program in ((Stage.CACHE, self.cache), (Stage.INDEXER, self.indexer)):
            for part in program:
                attrs = {name: self._attr(value, bindings) for name, value in part.attrs.items()}
                ref = builder.add(
                    stage, part.op, attrs, [_ref(i) for i in part.inputs], part.output, part.line
                )
                found = builder.programs[stage][ref.node].type
                if part.type is not None and not _agrees(
                    part.type, (found.format.name, found.rows, found.cols)
                ):
                    raise FlowTypeError(
                        f"the type {part.type} is not {found.text(stage)}", op=part.op, line=part.line
                    )
        graph = builder.finish(_guards(self.guards, bindings))
        check_size(graph)
        return graph

    def _attr(self, value: Any, bindings: dict[str, int]) -> object:
        if isinstance(value, list):
            return tuple(self._attr(item, bindings) for item in value)
        if isinstance(value, Array):
            return self._weight(value)
        return Dim.parse(value.dim, bindings) if isinstance(value, SymbolicSize) else value

    def _weight(self, array: Array) -> Weight:
        if array.sha256 not in self.weights:
            raise FlowTypeError(f"the document has no weights {array.sha256[:12]}...")
        try:
            weight = Weight.of_text(array.shape, self.weights[array.sha256])
        except WeightError as error:
            raise FlowTypeError(f"the weights {array.sha256[:12]}... must be {error}") from None
        if weight.digest != array.sha256:
            raise FlowTypeError(f"the weights {array.sha256[:12]}... are not those of their digest")
        return weight


def _agrees(claimed: tuple[str, int | str, int | str], found: tuple[str, Dim, Dim]) -> bool:
    spelled = [size.hint if not size.symbolic else str(size.expr) for size in found[1:]]
    return [claimed[0], claimed[1], claimed[2]] == [found[0], *spelled]


def _guards(texts: list[str], bindings: dict[str, int]) -> list[str]:
    """The guards in normal form; each must hold where the graph says it was traced."""
    kept = []
    for text in texts:
        guard = Guard.parse(text, bindings)
        try:
            holds = guard.holds(bindings)
        except ZeroDivisionError:
            raise ExpressionError(f"the guard {text!r} divides by zero") from None
        if not holds:
            raise FlowTypeError(f"the guard {text!r} does not hold at the geometry the graph was traced at")
        if not guard.always():
            kept.append(str(guard))
    return kept


def _ref(text: int | str) -> Ref:
    if isinstance(text, int):
        return Ref.at(text)
    if text == "q":
        return Ref.query()
    head, _, name = text.partition(".")
    if head != "cache" or not name:
        raise FlowTypeError(f"{text!r} is not an operand: write a position, 'q' or 'cache.<field>'")
    return Ref.field(name)
