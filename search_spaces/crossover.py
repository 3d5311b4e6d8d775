"""What two flows make together: a child that has a part of either.

Flows of one kind speak of the same query and the same blocks, so their scores can be merged, their parts
exchanged where the types fit, and their summaries swapped; fields come along with whatever reads them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations

from search_spaces.expr import Expr, Stored, fields, places, replaced_everywhere
from search_spaces.grammar import as_draft, brief, settled, simplified
from search_spaces.mutate import Edit, Mutation, combination, replace_at
from search_spaces.program import OutsideError, Program, from_graph
from search_spaces.typed import same_type, type_of
from vortex.graph.model import FlowGraph

_TRIES = 20
UNION_K = (8, 8)
"""Of a new union, which `search_spaces.budget.dealt` makes the candidate's budget."""

Cross = Callable[[Expr, Expr, random.Random], Edit | None]


def cross(first: FlowGraph, second: FlowGraph, rng: random.Random) -> Mutation | None:
    """A child of two graphs: canonical, well-typed, small, and with another hash than either.

    None where the kinds differ, a graph lies outside the grammar, or they are too alike or too large to
    make anything new.
    """
    try:
        parents = [from_graph(first), from_graph(second)]
    except OutsideError:
        return None
    if parents[0].kind != parents[1].kind:
        return None
    known = {first.hash, second.hash}
    for _ in range(_TRIES):
        one, other = (rng.choice(parent.scores) for parent in parents)
        made = _child(one, other, rng)
        draft = as_draft(*made) if made is not None else None
        if draft is not None and draft.graph.hash not in known:
            return Mutation(draft.graph, draft.what)
    return None


def _child(one: Expr, other: Expr, rng: random.Random) -> tuple[Program, str] | None:
    if one != other and rng.random() < 0.1:
        what = f"a union of its choice by {brief(one)} and the other's by {brief(other)}"
        return Program.union(one, other, UNION_K), what
    edit = rng.choices([way for way, _ in WAYS], [weight for _, weight in WAYS])[0](one, other, rng)
    final = settled(simplified(edit.score), rng) if edit is not None else None
    return (Program.top(final), edit.what) if edit is not None and final is not None else None


def merged(one: Expr, other: Expr, rng: random.Random) -> Edit | None:
    """Both scores as one."""
    if one == other:
        return None
    new = combination(one, other, rng)
    return Edit(new, f"{new.op} of {brief(one)} and {brief(other)}")


def exchanged(one: Expr, other: Expr, rng: random.Random) -> Edit | None:
    """A part replaced by a part of the same type of the other: a field, a way to hold the query against it, a
    reduction."""
    place = rng.choice([p for p in places(one) if p.path])
    wanted = type_of(place.expr, place.stage)
    parts = [
        p.expr
        for p in places(other)
        if p.stage is place.stage and p.expr != place.expr and same_type(type_of(p.expr, p.stage), wanted)
    ]
    if not parts:
        return None
    new = rng.choice(parts)
    return replace_at(
        one, place, new, f"{brief(place.expr, 50)} replaced by {brief(new)} of the other parent"
    )


def resummarised(one: Expr, other: Expr, rng: random.Random) -> Edit | None:
    """The scoring of one over the summaries of the other, as far as their shapes fit."""
    mine, theirs = fields(one), fields(other)
    options = [
        chosen
        for count in range(min(len(mine), len(theirs)), 0, -1)
        for own in permutations(mine, count)
        for new in permutations(theirs, count)
        if _fit(chosen := tuple(zip(own, new, strict=True)))
    ]
    if not options:
        return None
    most = max(map(len, options))
    swaps = rng.choice([chosen for chosen in options if len(chosen) == most])
    score = one
    for old, new in swaps:
        score = replaced_everywhere(score, old, new)
    said = ", ".join(f"{brief(old, 50)} becomes {brief(new, 50)}" for old, new in swaps)
    return Edit(score, f"over the summaries of the other parent: {said}")


def _fit(swaps: tuple[tuple[Stored, Stored], ...]) -> bool:
    return all(old != new and same_type(type_of(old), type_of(new)) for old, new in swaps)


WAYS: tuple[tuple[Cross, float], ...] = ((merged, 1.0), (exchanged, 2.0), (resummarised, 1.0))
