"""Types of expressions, by the ops' own rules: nothing here knows what an op accepts."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.expr import Apply, Attrs, Expr, Given, Stored
from vortex.dims import Dim
from vortex.errors import VortexError
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, Format, Stage, TensorType
from vortex.ops import find_op

GENERIC = Geometry.mla(block_size=96, kv_lora_rank=83, qk_rope_head_dim=29, group=5)
"""Sizes that no two expressions of the symbols, of either kind, are likely to share: what types here types
because of its symbols."""
TRACED = {"gqa": Geometry(), "mla": Geometry.mla(16, 512, 64, 16)}
"""Kind of flow -> the sizes that it is traced with where no model says otherwise."""


class UntypedError(VortexError):
    """An expression that the ops' rules refuse."""


def op(stage: Stage, name: str, *operands: Expr, **attrs: Attr) -> Apply:
    """An op with its constructor arguments, defaults filled in. Raises FlowTypeError for arguments it
    refuses."""
    bound = find_op(stage, name).bind((), attrs, stage)
    return Apply(name, tuple(bound.items()), operands)


def type_of(expr: Expr, stage: Stage = Stage.INDEXER, geometry: Geometry = GENERIC) -> TensorType:
    """The type of an expression in a program of a flow of its leaves' kind. Raises UntypedError."""
    found = _type_of(expr, stage, geometry)
    if isinstance(found, TensorType):
        return found
    raise UntypedError(found)


def typed(expr: Expr, stage: Stage = Stage.INDEXER) -> bool:
    return isinstance(_type_of(expr, stage, GENERIC), TensorType)


def same_type(a: TensorType, b: TensorType) -> bool:
    """Same format and same sizes for every geometry."""
    return a.format is b.format and str(a.rows) == str(b.rows) and str(a.cols) == str(b.cols)


def is_score(type: TensorType) -> bool:
    """One number for each block: what a selector takes."""
    return type.format is Format.RAGGED and str(type.rows) == "1" and str(type.cols) == "1"


def with_hints(attrs: Attrs, geometry: Geometry) -> Attrs:
    """The same symbolic sizes, carrying the values that they have at `geometry`."""
    return tuple((name, _hinted(value, geometry)) for name, value in attrs)


def _hinted(value: Attr, geometry: Geometry) -> Attr:
    if isinstance(value, Dim):
        return Dim.parse(str(value), geometry.bindings())
    return tuple(_hinted(part, geometry) for part in value) if isinstance(value, tuple) else value


@lru_cache(maxsize=50_000)
def _type_of(expr: Expr, stage: Stage, geometry: Geometry) -> TensorType | str:
    """The type, or why there is none."""
    if isinstance(expr, Given):
        return _given(expr, stage, geometry)
    if isinstance(expr, Stored):
        if stage is Stage.CACHE or not isinstance(expr.value, Apply):
            return "a field holds the result of an op of the cache program, and is read in the indexer"
        held = _type_of(expr.value, Stage.CACHE, geometry)
        return TensorType(Format.PAGED, held.rows, held.cols) if isinstance(held, TensorType) else held
    assert isinstance(expr, Apply)
    if len(expr.kinds) > 1:
        return "parts of flows of different kinds do not go together"
    types: list[TensorType] = []
    for operand in expr.operands:
        found = _type_of(operand, stage, geometry)
        if isinstance(found, str):
            return found
        types.append(found)
    try:
        attrs = dict(with_hints(expr.attrs, geometry))
        return find_op(stage, expr.op).result(stage, attrs, tuple(types))
    except (VortexError, ValueError) as error:
        return str(error)


def _given(leaf: Given, stage: Stage, geometry: Geometry) -> TensorType | str:
    from vortex.graph.build import injected_fields, query_type

    if leaf.name == "q":
        return query_type(leaf.kind, geometry) if stage is Stage.INDEXER else "the cache program has no query"
    found = (field.type for field in injected_fields(leaf.kind, geometry) if field.name == leaf.name)
    return next(found, f"there is no {leaf.name}")
