"""A flow as one expression: what the selector ranks blocks by, with each field's summary inside it.

Mutations replace subexpressions. Fields have no names here: a field is the summary it holds, two equal
ones are one, and one that nobody reads does not exist. `program.py` turns a graph into this form and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from vortex.graph.model import Attr, Stage

Attrs = tuple[tuple[str, Attr], ...]


@dataclass(frozen=True, eq=False)
class Expr:
    """A value. Equal when it is the same computation; the key spells it, symbolic sizes included."""

    @property
    def inputs(self) -> tuple[Expr, ...]:
        return ()

    @cached_property
    def key(self) -> str:
        raise NotImplementedError

    @cached_property
    def size(self) -> int:
        """Ops in the tree, a shared subexpression counted each time it is used."""
        return sum(part.size for part in self.inputs)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of flow that the leaves belong to: one, unless parts of two kinds were put together."""
        return frozenset().union(*(part.kinds for part in self.inputs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, eq=False)
class Given(Expr):
    """What the engine provides to a "gqa" flow, the query `q` or the block's own `k`, `v`; to an "mla" flow
    `q` or `latent`."""

    name: str
    kind: str = "gqa"

    @cached_property
    def key(self) -> str:
        return self.name if self.kind == "gqa" else f"{self.kind} {self.name}"

    @cached_property
    def kinds(self) -> frozenset[str]:
        return frozenset([self.kind])


@dataclass(frozen=True, eq=False)
class Stored(Expr):
    """A field: `value` is computed by the cache program when a block is finished, and kept."""

    value: Expr

    @property
    def inputs(self) -> tuple[Expr, ...]:
        return (self.value,)

    @cached_property
    def key(self) -> str:
        return f"<{self.value.key}>"


@dataclass(frozen=True, eq=False)
class Apply(Expr):
    """An op of the program it stands in: the cache's inside `Stored`, the indexer's outside."""

    op: str
    attrs: Attrs
    operands: tuple[Expr, ...]

    @property
    def inputs(self) -> tuple[Expr, ...]:
        return self.operands

    @cached_property
    def key(self) -> str:
        attrs = ",".join(f"{name}={value}" for name, value in self.attrs)
        return f"{self.op}{'{' + attrs + '}' if attrs else ''}({', '.join(x.key for x in self.operands)})"

    @cached_property
    def size(self) -> int:
        return 1 + sum(part.size for part in self.operands)


def kind_of(expr: Expr) -> str:
    """The kind of flow that the expression is a part of; "gqa" for one without leaves."""
    return min(expr.kinds, default="gqa")


Path = tuple[int, ...]
"""Positions of the operands that lead from the root to a subexpression."""


@dataclass(frozen=True)
class Place:
    """A subexpression, where it is, and the program it belongs to (a field belongs to the one that reads
    it)."""

    path: Path
    expr: Expr
    stage: Stage


def places(root: Expr, stage: Stage = Stage.INDEXER, path: Path = ()) -> Iterator[Place]:
    """Every subexpression, the root first."""
    yield Place(path, root, stage)
    inner = Stage.CACHE if isinstance(root, Stored) else stage
    for i, part in enumerate(root.inputs):
        yield from places(part, inner, (*path, i))


def with_inputs(expr: Expr, inputs: tuple[Expr, ...]) -> Expr:
    """The same op or field over other inputs."""
    if isinstance(expr, Apply):
        return Apply(expr.op, expr.attrs, inputs)
    return Stored(inputs[0]) if isinstance(expr, Stored) else expr


def replaced(root: Expr, path: Path, new: Expr) -> Expr:
    """The root with the subexpression at `path` replaced."""
    if not path:
        return new
    at, rest = path[0], path[1:]
    parts = tuple(replaced(part, rest, new) if i == at else part for i, part in enumerate(root.inputs))
    return with_inputs(root, parts)


def replaced_everywhere(root: Expr, old: Expr, new: Expr) -> Expr:
    """The root with every occurrence of `old` replaced, so that two reads of one field stay one field."""
    if root == old:
        return new
    if not root.inputs:
        return root
    return with_inputs(root, tuple(replaced_everywhere(part, old, new) for part in root.inputs))


def fields(root: Expr) -> tuple[Stored, ...]:
    """The distinct fields that the expression reads, in order of first use."""
    found = {place.expr: None for place in places(root) if isinstance(place.expr, Stored)}
    return tuple(expr for expr in found if isinstance(expr, Stored))
