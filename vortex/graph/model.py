"""The typed, immutable data that a traced flow is: fields, and two straight-line programs of ops.

The cache program summarises one finished block; the indexer program scores the blocks of one row and ends
in the op that claims the output. Nodes refer to earlier nodes of their own program by position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property

from vortex.dims import Dim
from vortex.graph.geometry import Geometry
from vortex.weights import Weight

VERSION = 1
DEFAULT_GEOMETRY = Geometry()

Attr = bool | int | float | str | Weight | None | tuple["Attr", ...]
"""A constructor argument of an op. Integers may be symbolic `Dim`s."""


class Format(IntEnum):
    """What the leading axis of a tensor counts."""

    BATCHED = 0  # one entry per row (request x kv head): the query
    RAGGED = 1  # the blocks of all rows, concatenated: intermediates
    PAGED = 2  # absolute block ids: fields, and everything in the cache program
    PARAMETER = 3  # a constant shared by the batch
    SLOTTED = 4  # one slot per row for as long as its request lives: request fields
    SELECTION = 5  # not a tensor: blocks that TopK has chosen, for Union


class Stage(StrEnum):
    CACHE = "cache"
    INDEXER = "indexer"


class RefKind(StrEnum):
    QUERY = "query"
    FIELD = "field"
    NODE = "node"


@dataclass(frozen=True)
class TensorType:
    """Format of the leading axis and the two inner dims."""

    format: Format
    rows: Dim
    cols: Dim

    def text(self, stage: Stage = Stage.INDEXER) -> str:
        """The shape as the author of a flow thinks of it: one row, or one finished block."""
        if self.format is Format.SELECTION:
            return f"{self.cols} blocks"
        lead = "S" if stage is Stage.INDEXER and self.has_blocks else "1"
        return f"[{lead}, {self.rows}, {self.cols}]"

    @property
    def has_blocks(self) -> bool:
        """Whether the leading axis counts blocks."""
        return self.format in (Format.RAGGED, Format.PAGED)

    @property
    def numel(self) -> int:
        """Elements per entry of the leading axis, at the traced geometry."""
        return self.rows.hint * self.cols.hint


@dataclass(frozen=True)
class Field:
    """An auxiliary field: PAGED, `rows x cols` per block, or SLOTTED, `rows x cols` per row. `k` and `v`
    (MLA: `latent`) are implied."""

    name: str
    rows: Dim
    cols: Dim
    format: Format = Format.PAGED

    @property
    def type(self) -> TensorType:
        return TensorType(self.format, self.rows, self.cols)


@dataclass(frozen=True)
class Ref:
    """An operand. `FIELD` means the field as it was before the program ran. For the cache program that is
    zeros, except for the injected `k`, `v` and `latent`; for the indexer, what the cache program or the last
    step's Save has left there."""

    kind: RefKind
    name: str = ""
    node: int = -1

    @staticmethod
    def query() -> Ref:
        return Ref(RefKind.QUERY)

    @staticmethod
    def field(name: str) -> Ref:
        return Ref(RefKind.FIELD, name)

    @staticmethod
    def at(node: int) -> Ref:
        return Ref(RefKind.NODE, node=node)


@dataclass(frozen=True)
class Node:
    """One op. `output` is the field that the op writes, if it writes one."""

    op: str
    attrs: tuple[tuple[str, Attr], ...]
    inputs: tuple[Ref, ...]
    type: TensorType
    output: str | None = None
    line: int | None = field(default=None, compare=False)

    def attr(self, name: str) -> Attr:
        return dict(self.attrs)[name]


@dataclass(frozen=True)
class Selection:
    """A choice of blocks by `score`, `[S, 1, 1]`: `k` of them, or as many as the plan says."""

    score: Ref
    k: int | None


def _number(value: Attr) -> int | None:
    return value.hint if isinstance(value, Dim) else None


@dataclass(frozen=True, eq=False)
class FlowGraph:
    """A flow as data. Two graphs are equal when their JSON is.

    `guards` are facts about the symbols that the author's Python relied on; `traced_at` is the geometry
    whose sizes the Dims carry as hints. Everything that executes or costs a graph uses `graph.canonical()`
    or, with numbers for the symbols, `graph.instantiate(geometry)`, which is canonical too.
    """

    kind: str  # "gqa" | "mla"
    fields: tuple[Field, ...]
    cache: tuple[Node, ...]
    indexer: tuple[Node, ...]
    guards: tuple[str, ...] = ()
    version: int = VERSION
    traced_at: Geometry = DEFAULT_GEOMETRY

    @property
    def injected(self) -> tuple[Field, ...]:
        """The fields that the engine fills: `k` and `v`, or `latent`."""
        from vortex.graph.build import injected_fields

        return injected_fields(self.kind, self.traced_at)

    def field(self, name: str) -> Field:
        """The auxiliary or injected field `name`. Raises KeyError."""
        for candidate in (*self.fields, *self.injected):
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def program(self, stage: Stage) -> tuple[Node, ...]:
        return self.cache if stage is Stage.CACHE else self.indexer

    def nodes(self) -> Iterator[tuple[Stage, Node]]:
        yield from ((Stage.CACHE, node) for node in self.cache)
        yield from ((Stage.INDEXER, node) for node in self.indexer)

    def weights(self) -> Iterator[Weight]:
        """The constants of all ops."""
        for _, node in self.nodes():
            yield from (value for _, value in node.attrs if isinstance(value, Weight))

    def type_of(self, stage: Stage, ref: Ref) -> TensorType:
        """The type of an operand of `stage`'s program."""
        if ref.kind is RefKind.NODE:
            return self.program(stage)[ref.node].type
        if ref.kind is RefKind.FIELD:
            return self.field(ref.name).type
        from vortex.graph.build import query_type

        return query_type(self.kind, self.traced_at)

    @cached_property
    def selector(self) -> Node:
        """The one op that claims the output: topK, approxTopK or Union."""
        from vortex.ops import find_op

        return next(node for node in self.indexer if find_op(Stage.INDEXER, node.op).claims_output)

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        """The selections that make the output, each by its own score: one, or those of a Union."""
        picks = [self.selector]
        if self.selector.inputs[0].kind is RefKind.NODE:
            makers = [self.indexer[ref.node] for ref in self.selector.inputs]
            if all(maker.type.format is Format.SELECTION for maker in makers):
                picks = makers
        return tuple(Selection(pick.inputs[0], _number(dict(pick.attrs).get("k"))) for pick in picks)

    @cached_property
    def _canonical(self) -> FlowGraph:
        from vortex.graph.canonical import canonical

        return canonical(self)

    def canonical(self) -> FlowGraph:
        """The same algorithm without dead ops, dead fields and duplicates, in an order and with field names
        (f0, f1, ...) that depend on the computation alone. Idempotent."""
        return self._canonical

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the algorithm: of the canonical graph without names, lines and traced sizes."""
        from vortex.graph.serial import fingerprint

        return fingerprint(self.canonical())

    def instantiate(self, geometry: Geometry) -> FlowGraph:
        """The canonical graph with numbers instead of symbols. Raises GuardError (the flow does not serve
        this geometry) or GraphError (it would be too large there)."""
        from vortex.graph.instantiate import instantiate

        return instantiate(self, geometry)

    def to_json(self) -> str:
        from vortex.graph.serial import to_json

        return to_json(self)

    @staticmethod
    def from_json(text: str | bytes) -> FlowGraph:
        """The graph that `text` describes. The text is not trusted: every type is inferred again and every
        rule checked; raises GraphError, and nothing else, on whatever is not a valid graph."""
        from vortex.graph.serial import from_json

        return from_json(text)

    @cached_property
    def _identity(self) -> str:
        from vortex.graph.serial import identity

        return identity(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowGraph) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)
