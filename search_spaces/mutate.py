"""Typed edits of a block score. Each says in words what it did; `edited` keeps what the grammar accepts.

What two parents make together is `crossover.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from search_spaces import motifs
from search_spaces.attributes import draw_attrs, perturbed
from search_spaces.expr import (
    Apply,
    Expr,
    Place,
    Stored,
    fields,
    kind_of,
    places,
    replaced,
    replaced_everywhere,
)
from search_spaces.grammar import as_draft, brief, grown, sensible, settled, simplified, usable_ops
from search_spaces.program import OutsideError, Program, from_graph
from search_spaces.typed import op, same_type, type_of, typed
from vortex.graph.model import FlowGraph, Format, Stage
from vortex.ops import OPS

_TRIES = 20


@dataclass(frozen=True)
class Edit:
    score: Expr
    what: str


@dataclass(frozen=True)
class Mutation:
    """A graph that differs from its parents', and how."""

    graph: FlowGraph
    what: str


Move = Callable[[Expr, random.Random], Edit | None]


def mutate(graph: FlowGraph, rng: random.Random) -> Mutation | None:
    """One or two typed edits of a graph. None when the graph lies outside the grammar.

    The result is canonical, well-typed, small, and has another hash than `graph`.
    """
    try:
        program = from_graph(graph)
    except OutsideError:
        return None
    for _ in range(_TRIES):
        changed, said = program, []
        for _ in range(rng.choice((1, 1, 1, 2))):
            found = _edited_program(changed, rng)
            if found is not None:
                changed = found[0]
                said.append(found[1])
        draft = as_draft(changed, "; ".join(said))
        if draft is not None and said and draft.graph.hash != graph.hash:
            return Mutation(draft.graph, draft.what)
    return None


def _edited_program(program: Program, rng: random.Random) -> tuple[Program, str] | None:
    """One of the scores edited, or a union given up for one of its two."""
    index = rng.randrange(len(program.scores))
    if len(program.scores) > 1 and rng.random() < 0.2:
        return Program.top(program.scores[index]), f"one of two selections: {brief(program.scores[index])}"
    edit = edited(program.scores[index], rng)
    return (program.with_score(index, edit.score), edit.what) if edit is not None else None


def edited(score: Expr, rng: random.Random) -> Edit | None:
    """One edit that leaves a sensible score, or None when many tries gave none."""
    moves = [move for move, _ in MOVES]
    weights = [weight for _, weight in MOVES]
    for _ in range(_TRIES):
        edit = rng.choices(moves, weights)[0](score, rng)
        if edit is None:
            continue
        final = settled(simplified(edit.score), rng)
        if final is not None and final != score and sensible(final):
            return Edit(final, edit.what)
    return None


def _leaves(score: Expr) -> motifs.Leaves:
    return motifs.LEAVES[kind_of(score)]


def other_summary(score: Expr, rng: random.Random) -> Edit | None:
    """One field holds another idiom of about the same shape."""
    field = rng.choice(fields(score))
    single = str(type_of(field).cols) == "1"
    new = Stored(rng.choice(motifs.SCALARS if single else motifs.CENTRES)(rng, _leaves(score)))
    return Edit(replaced_everywhere(score, field, new), f"field {brief(field)} becomes {brief(new)}")


def more_or_fewer_rows(score: Expr, rng: random.Random) -> Edit | None:
    """A reduction over the tokens of a block becomes one over groups of tokens, or back."""
    field = rng.choice(fields(score))
    place = rng.choice([p for p in places(field) if isinstance(p.expr, Apply)])
    assert isinstance(place.expr, Apply)
    name = place.expr.op
    other = name.removesuffix("Interleave") if name.endswith("Interleave") else f"{name}Interleave"
    definition = OPS.get((Stage.CACHE, other))
    if definition is None:
        return None
    attrs = draw_attrs(definition, Stage.CACHE, type_of(place.expr.operands[0], Stage.CACHE), rng)
    if attrs is None:
        return None
    new = replaced(field, place.path, Apply(other, attrs, place.expr.operands))
    return Edit(replaced_everywhere(score, field, new), f"field {brief(field)} becomes {brief(new)}")


def other_heads(score: Expr, rng: random.Random) -> Edit | None:
    """The query heads are pooled before the product instead of after it, or the other way round."""
    of = _leaves(score)
    pooled = [
        p
        for p in places(score)
        if isinstance(p.expr, Apply) and p.expr.operands == (of.q,) and _pools(p.expr)
    ]
    if pooled:
        old = rng.choice(pooled).expr
        return Edit(
            replaced_everywhere(score, old, of.q), f"heads are scored one by one, without {brief(old)}"
        )
    new = motifs.pooled_query(rng, of)
    return Edit(replaced_everywhere(score, of.q, new), f"heads are pooled first by {brief(new)}")


def other_parts(score: Expr, rng: random.Random) -> Edit | None:
    """MLA: content and position of the query weighted apart, or no longer."""
    of = _leaves(score)
    if of.kind != "mla":
        return None
    weighted = [
        p
        for p in places(score)
        if isinstance(p.expr, Apply)
        and p.expr.op == "Multiply"
        and type_of(p.expr, p.stage).format is Format.BATCHED
    ]
    if weighted:
        old = rng.choice(weighted).expr
        return Edit(replaced_everywhere(score, old, of.q), f"the query as it is, without {brief(old)}")
    new = motifs.parts_weighted(rng, of.q)
    return Edit(replaced_everywhere(score, of.q, new), f"parts of the query weighted by {brief(new)}")


def head_softmax(score: Expr, rng: random.Random) -> Edit | None:
    """A softmax (or L2 normalisation) over blocks of what is reduced over heads or sub-blocks."""
    found = [
        p
        for p in _inside(score, Stage.INDEXER)
        if type_of(p.expr).format is Format.RAGGED and _is_matrix(p.expr)
    ]
    if not found:
        return None
    place = rng.choice(found)
    new = (
        motifs.head_softmax(rng, place.expr)
        if rng.random() < 0.75
        else op(Stage.INDEXER, "Normalize", place.expr)
    )
    return Edit(
        replaced(score, place.path, new), f"{_over_blocks(new)} of {brief(place.expr, 50)} over blocks"
    )


def smoothed(score: Expr, rng: random.Random) -> Edit | None:
    """A block gets a share of the score of the block before, or no longer."""
    found = [p for p in _inside(score, Stage.INDEXER) if isinstance(p.expr, Apply) and p.expr.op == "Conv1d"]
    if found:
        place = rng.choice(found)
        return Edit(replaced(score, place.path, place.expr.inputs[0]), "blocks score for themselves alone")
    new = motifs.smoothed(rng, score)
    return Edit(new, f"each block with a share of the block before: {brief(new)}")


def other_op(score: Expr, rng: random.Random) -> Edit | None:
    """An op replaced by another one of the table that gives the same type."""
    place = rng.choice([p for p in places(score) if isinstance(p.expr, Apply)])
    assert isinstance(place.expr, Apply)
    operands = place.expr.operands
    wanted = type_of(place.expr, place.stage)
    drafts: list[tuple[Apply, float]] = []
    for definition, weight in usable_ops(place.stage, len(operands)):
        attrs = draw_attrs(definition, place.stage, type_of(operands[0], place.stage), rng)
        if attrs is None or definition.name == place.expr.op:
            continue
        made = Apply(definition.name, attrs, operands)
        if typed(made, place.stage) and same_type(type_of(made, place.stage), wanted):
            drafts.append((made, weight))
    if not drafts:
        return None
    new = rng.choices([d for d, _ in drafts], [w for _, w in drafts])[0]
    return replace_at(score, place, new, f"{brief(place.expr)} becomes {brief(new)}")


def other_argument(score: Expr, rng: random.Random) -> Edit | None:
    """One constructor argument of an op changed."""
    place = rng.choice([p for p in places(score) if isinstance(p.expr, Apply)])
    assert isinstance(place.expr, Apply)
    first = type_of(place.expr.operands[0], place.stage) if place.expr.operands else None
    found = perturbed(place.expr, place.stage, first, rng)
    if found is None:
        return None
    name, new = found
    before, after = dict(place.expr.attrs)[name], dict(new.attrs)[name]
    return replace_at(score, place, new, f"{name} of {brief(place.expr, 50)} from {before} to {after}")


def new_unary(score: Expr, rng: random.Random) -> Edit | None:
    """An op that keeps the type inserted somewhere below the root."""
    place = rng.choice([p for p in places(score) if p.path and not isinstance(p.expr, Stored)])
    below = type_of(place.expr, place.stage)
    drafts: list[tuple[Apply, float]] = []
    for definition, weight in usable_ops(place.stage, 1):
        attrs = draw_attrs(definition, place.stage, below, rng)
        made = Apply(definition.name, attrs, (place.expr,)) if attrs is not None else None
        if made is not None and typed(made, place.stage) and same_type(type_of(made, place.stage), below):
            drafts.append((made, weight))
    if not drafts:
        return None
    new = rng.choices([d for d, _ in drafts], [w for _, w in drafts])[0]
    return Edit(replaced(score, place.path, new), f"{brief(new)} in place of {brief(place.expr, 50)}")


def without(score: Expr, rng: random.Random) -> Edit | None:
    """An op removed: one of its operands takes its place."""
    found = [p for p in places(score) if isinstance(p.expr, Apply) and p.expr.operands]
    place = rng.choice(found)
    part = rng.choice(place.expr.inputs)
    if isinstance(part, Stored):
        return None
    return replace_at(score, place, part, f"{brief(place.expr)} gives way to its part {brief(part, 50)}")


def combined(score: Expr, rng: random.Random) -> Edit | None:
    """A second score, of an idiom, added, gated with, or taken where it is larger (smaller)."""
    second = settled(rng.choice(motifs.SCORES)(rng, _leaves(score)), rng)
    if second is None or second == score:
        return None
    new = combination(score, second, rng)
    return Edit(new, f"{new.op} with a second score {brief(second)}")


def combination(first: Expr, second: Expr, rng: random.Random) -> Apply:
    """One score of two: their weighted sum, their maximum or minimum (each normalised over the blocks
    first, often), or their product."""
    name = rng.choice(("Add", "Add", "Add", "Maximum", "Minimum", "Multiply"))
    if name != "Multiply" and rng.random() < 0.6:
        first, second = (op(Stage.INDEXER, "Normalize", part) for part in (first, second))
    share = motifs.weight(rng)
    attrs = {"alpha": round(1.0 - share, 2) or 1.0, "beta": share} if name == "Add" else {}
    return op(Stage.INDEXER, name, first, second, **attrs)


def corrected(score: Expr, rng: random.Random) -> Edit | None:
    """The score weighted by, or raised by a multiple of, one number a block."""
    number = Stored(rng.choice(motifs.SCALARS)(rng, _leaves(score)))
    if rng.random() < 0.5:
        return Edit(op(Stage.INDEXER, "Multiply", score, number), f"score times the field {brief(number)}")
    share = motifs.weight(rng) * rng.choice((1, 1, -1))
    new = op(Stage.INDEXER, "Add", score, number, alpha=1.0, beta=share)
    return Edit(new, f"score plus {share:g} times the field {brief(number)}")


def fresh_part(score: Expr, rng: random.Random) -> Edit | None:
    """A part replaced by a random expression of its type."""
    place = rng.choice([p for p in places(score) if not isinstance(p.expr, Stored)])
    new = grown(type_of(place.expr, place.stage), place.stage, rng, kind_of(score))
    if new is None or new == place.expr:
        return None
    return replace_at(score, place, new, f"{brief(place.expr, 50)} replaced by {brief(new)}")


def fresh_score(score: Expr, rng: random.Random) -> Edit | None:
    """Another idiom altogether: keeps the search from settling too early."""
    new = settled(rng.choice(motifs.SCORES)(rng, _leaves(score)), rng)
    return Edit(new, f"a new score {brief(new)}") if new is not None else None


MOVES: tuple[tuple[Move, float], ...] = (
    (other_summary, 5.0),
    (more_or_fewer_rows, 1.0),
    (other_heads, 1.5),
    (other_parts, 1.5),
    (head_softmax, 1.5),
    (smoothed, 0.4),
    (other_op, 1.5),
    (other_argument, 1.5),
    (new_unary, 0.7),
    (without, 1.0),
    (combined, 1.2),
    (corrected, 1.0),
    (fresh_part, 0.7),
    (fresh_score, 1.5),
)
"""Every edit with its weight; meaningful ones are frequent, the open ones keep the whole language
reachable."""


def replace_at(score: Expr, place: Place, new: Expr, what: str) -> Edit:
    """Inside a field the edit goes to every read of that field, so that it stays one field."""
    for depth in range(len(place.path)):
        holder = _at(score, place.path[: depth + 1])
        if isinstance(holder, Stored) and len(place.path) > depth + 1:
            changed = replaced(holder, place.path[depth + 1 :], new)
            return Edit(replaced_everywhere(score, holder, changed), f"in a field, {what}")
    return Edit(replaced(score, place.path, new), what)


def _at(root: Expr, path: tuple[int, ...]) -> Expr:
    for at in path:
        root = root.inputs[at]
    return root


def _inside(score: Expr, stage: Stage) -> list[Place]:
    return [p for p in places(score) if p.stage is stage and isinstance(p.expr, Apply)]


def _is_matrix(expr: Expr) -> bool:
    found = type_of(expr)
    return str(found.rows) != "1" or str(found.cols) != "1"


def _pools(expr: Apply) -> bool:
    return str(type_of(expr).rows) == "1" and str(type_of(expr).cols) != "1"


def _over_blocks(expr: Apply) -> str:
    return f"{expr.op} (scale {dict(expr.attrs)['scale']})" if "scale" in dict(expr.attrs) else expr.op
