"""Random typed expressions: drafts from the idioms and from the whole op table, kept when the ops' rules
type them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from search_spaces import motifs
from search_spaces.attributes import draw_attrs
from search_spaces.expr import Apply, Expr, Given, Place, Stored, fields, kind_of, places, with_inputs
from search_spaces.program import Program, to_graph
from search_spaces.typed import TRACED, UntypedError, is_score, op, same_type, type_of, typed
from vortex.errors import VortexError
from vortex.graph.model import FlowGraph, Format, Stage, TensorType
from vortex.ops import OPS, OpDef, stage_ops
from vortex.ops.params import WeightParam, source

MAX_OPS = 24
MAX_FIELDS = 3
MAX_FIELD_VECTORS = 6
"""Of all fields of a block of 16 tokens, in vectors of head_dim (MLA: of a latent): beyond that a summary
costs like the block."""

_RARE = {
    "MaskSlice": 0.1,
    "Log": 0.2,
    "Kron": 0.1,
    "Reshape": 0.1,
    "Transpose": 0.2,
    "Load": 0.05,
    "Silu": 0.4,
}
_REDUCERS = {"Max": 5.0, "Mean": 2.0, "Sum": 2.0, "L2Norm": 0.3}
_SINGLETON_IDENTITIES = ("Max", "Min", "Mean", "Sum")


@dataclass(frozen=True)
class Draft:
    """A well-typed graph and, in words, how it came about."""

    graph: FlowGraph
    what: str


def as_draft(program: Program, what: str) -> Draft | None:
    """The graph of a program if it is a sensible flow of the grammar, else None."""
    if not (all(map(sensible, program.scores)) and _small(*program.scores)):
        return None
    try:
        return Draft(to_graph(program), what)
    except VortexError:
        return None


def sensible(score: Expr) -> bool:
    """Typed, one score per block, small, of the query and a field, and not of raw keys or values."""
    if score.size > 4 * MAX_OPS or not typed(score) or not is_score(type_of(score)):
        return False
    if not _small(score):
        return False
    found = list(places(score))
    given = [(place.expr.name, place.stage) for place in found if isinstance(place.expr, Given)]
    raw = any(name != "q" and stage is Stage.INDEXER for name, stage in given)
    asked = any(name == "q" for name, _ in given)
    return asked and not raw and len(fields(score)) > 0 and all(_unambiguous(place) for place in found)


def _small(*scores: Expr) -> bool:
    """Whether they have few ops and few fields together, and the fields are small."""
    ops = {place.expr for score in scores for place in places(score) if isinstance(place.expr, Apply)}
    held = tuple({field: None for score in scores for field in fields(score)})
    return len(ops) <= MAX_OPS and len(held) <= MAX_FIELDS and _vectors(held) <= MAX_FIELD_VECTORS


def _unambiguous(place: Place) -> bool:
    """Typed by the same symbols at the sizes that flows are traced with, where block_size//16 is 1."""
    try:
        traced = type_of(place.expr, place.stage, TRACED[kind_of(place.expr)])
    except UntypedError:
        return False
    return same_type(traced, type_of(place.expr, place.stage))


def _vectors(held: tuple[Stored, ...]) -> float:
    try:
        at = [(field, TRACED[kind_of(field)]) for field in held]
        return sum(type_of(field, Stage.INDEXER, sizes).numel / sizes.head_dim for field, sizes in at)
    except VortexError:
        return float("inf")


def settled(expr: Expr, rng: random.Random) -> Expr | None:
    """The expression reduced to one score a block, by a reduction for each axis that is left; None if it
    cannot be."""
    expr = simplified(expr)
    for _ in range(3):
        if not typed(expr):
            return None
        found = type_of(expr)
        if is_score(found):
            return expr
        if found.format is not Format.RAGGED:
            return None
        axis = 2 if str(found.cols) != "1" else 1
        name = rng.choices(list(_REDUCERS), list(_REDUCERS.values()))[0]
        expr = op(Stage.INDEXER, name, expr, dim=axis)
    return None


def simplified(expr: Expr, stage: Stage = Stage.INDEXER) -> Expr:
    """Without reductions over an axis of size one, and without fields inside fields."""
    inner = Stage.CACHE if isinstance(expr, Stored) else stage
    expr = with_inputs(expr, tuple(simplified(part, inner) for part in expr.inputs))
    if not (isinstance(expr, Apply) and expr.op in _SINGLETON_IDENTITIES and typed(expr, stage)):
        return expr
    over_blocks = dict(expr.attrs)["dim"] == 0
    unchanged = same_type(type_of(expr, stage), type_of(expr.operands[0], stage))
    return expr.operands[0] if unchanged and not over_blocks else expr


def usable_ops(stage: Stage, operands: int) -> list[tuple[OpDef, float]]:
    """The ops that an expression may hold, with weights: rare where a random use seldom means anything."""
    return [
        (definition, _RARE.get(name, 0.1 if name.startswith("Where") else 1.0))
        for name, definition in stage_ops(stage).items()
        if len(definition.operands) == operands
        and not (definition.claims_output or definition.selects)
        and not (definition.writes_field or definition.side_effect)
        and not any(
            isinstance(param, WeightParam) for param in definition.params
        )  # nothing to draw them from
    ]


def random_apply(stage: Stage, operands: tuple[Expr, ...], rng: random.Random) -> Apply | None:
    """Any op of the table over these operands; None when the one drawn does not take them."""
    choices = usable_ops(stage, len(operands))
    definition = rng.choices([d for d, _ in choices], [w for _, w in choices])[0]
    attrs = draw_attrs(definition, stage, type_of(operands[0], stage), rng)
    if attrs is None:
        return None
    made = Apply(definition.name, attrs, operands)
    return made if typed(made, stage) else None


def grown(
    wanted: TensorType, stage: Stage, rng: random.Random, kind: str = "gqa", steps: int = 14
) -> Expr | None:
    """A random expression of exactly the wanted type: ops applied to a pool of idioms until some fit."""
    pool: list[Expr] = _leaves(stage, rng, motifs.LEAVES[kind])
    first = len(pool)
    for _ in range(steps):
        count = 1 if rng.random() < 0.6 else 2
        made = random_apply(stage, tuple(rng.choice(pool) for _ in range(count)), rng)
        if made is not None and made.size <= MAX_OPS // 2:
            pool.append(made)
    fitting = [e for e in pool if typed(e, stage) and same_type(type_of(e, stage), wanted)]
    made_here = [e for e in fitting if e in pool[first:]]
    return rng.choice(made_here or fitting) if fitting else None


def _leaves(stage: Stage, rng: random.Random, of: motifs.Leaves) -> list[Expr]:
    if stage is Stage.CACHE:
        drafts: list[Expr] = [of.k, of.k, of.k, rng.choice(motifs.CENTRES)(rng, of), motifs.mean(rng, of)]
        drafts += [rng.choice(motifs.SCALARS)(rng, of), motifs.deviation(rng, of)]
    else:
        drafts = [of.q, motifs.pooled_query(rng, of), Stored(rng.choice(motifs.CENTRES)(rng, of))]
        drafts += [rng.choice(motifs.SCORES)(rng, of), Stored(rng.choice(motifs.SCALARS)(rng, of))]
    return [expr for expr in drafts if typed(expr, stage)]


def brief(expr: Expr, limit: int = 70) -> str:
    """The expression as a formula for people."""
    text = _formula(expr)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _formula(expr: Expr) -> str:
    if isinstance(expr, Given):
        return expr.name
    if isinstance(expr, Stored):
        return f"[{_formula(expr.value)}]"
    assert isinstance(expr, Apply)
    parts = [_formula(part) for part in expr.operands]
    attrs = dict(expr.attrs)
    if expr.op == "Add":
        a, b = attrs["alpha"], attrs["beta"]
        return f"({_times(a)}{parts[0]} + {_times(b)}{parts[1]})"
    if expr.op == "Multiply":
        return f"({parts[0]} * {parts[1]})"
    if expr.op == "GeMM":
        return f"({parts[0]} . {parts[1]})"
    definition = OPS.get((Stage.INDEXER, expr.op)) or OPS[Stage.CACHE, expr.op]
    usual = {param.name: param.default for param in definition.params}
    shown = [
        f"{name}={source(value)}" for name, value in attrs.items() if name == "dim" or value != usual[name]
    ]
    return f"{expr.op}({', '.join(parts + shown)})"


def _times(value: object) -> str:
    return "" if value == 1.0 else f"{value:g} " if isinstance(value, float) else f"{value} "
