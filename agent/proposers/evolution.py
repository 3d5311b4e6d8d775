"""Typed mutation over graphs: the proposer that needs no model service.

A parent is chosen from the front and its neighbourhood, its graph is edited through the grammar, and the
budget is set so that the child reads what the parent reads: a child that is better is then better at
equal bytes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from agent.proposers.base import Known, NoProposalError, Proposal, SearchView
from search_spaces.behaviour import behaviour, needle_recall, ranks_blocks
from search_spaces.budget import matched, row_bytes
from search_spaces.candidate import Candidate
from search_spaces.crossover import cross
from search_spaces.generate import random_graph
from search_spaces.knobs import KNOB_NAMES, Knobs
from search_spaces.mutate import mutate
from search_spaces.objectives import crowding, ranks
from vortex.graph.model import FlowGraph

KNOBS_ONLY = 0.25
"""How often only the knobs change, as long as that leaves at least half of the accepted children a new
graph."""

_TRIES = 100
_TOURNAMENT = 3
_LENGTH = 2048
_MATCHED = "for at most the parent's bytes"
_BROKEN = 0.6
"""Share of its parent's recall in made-up rows below which a child is not measured."""
_DEAREST = 0.5
"""Share of dense attention's bytes above which a candidate is no parent while there are cheaper ones."""


@dataclass(frozen=True)
class _Child:
    candidate: Candidate
    what: str
    parents: tuple[str, ...]


class EvolutionProposer:
    """Deterministic: the proposal depends on the seed and the view alone."""

    name = "evolution"

    def __init__(self, seed: int = 0):
        self._seed = seed

    def propose(self, view: SearchView) -> Proposal:
        from vortex.graph.render import render_flow

        rng = random.Random(f"evolution:{self._seed}:{view.index}")
        pool = _Pool(view)
        for _ in range(_TRIES):
            child = self._child(view, pool, rng)
            if child is None or not child.candidate.serves(view.geometry):
                continue
            if not view.known(child.candidate.hash):
                graph = child.candidate.graph
                return Proposal(
                    source=render_flow(graph, f"evolved_{graph.hash[:10]}"),
                    knobs=child.candidate.knobs,
                    hypothesis=child.what,
                    proposer=self.name,
                    parents=child.parents,
                )
        raise NoProposalError(f"{_TRIES} mutations gave no candidate that is new")

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        return None

    def _child(self, view: SearchView, pool: _Pool, rng: random.Random) -> _Child | None:
        parent = pool.parent(rng)
        if parent is None:
            draft = random_graph(rng, view.geometry.kind)
            return _Child(Candidate(draft.graph, view.space.sample(rng)), f"a first draw: {draft.what}", ())
        if _may_keep_graph(view) and rng.random() < KNOBS_ONLY:
            return _retuned(parent, view, rng)
        return _remade(parent, pool, view, rng)


def _may_keep_graph(view: SearchView) -> bool:
    """Whether one more child with its parent's graph leaves at least half of the accepted ones with a new
    graph."""
    return 2 * view.accepted.graph >= view.accepted.total + 1


def _retuned(parent: Known, view: SearchView, rng: random.Random) -> _Child:
    """The parent's graph with other knobs: the study's suggestion, or a step from the parent's."""
    old = parent.candidate.knobs
    suggested = view.suggestion if rng.random() < 0.5 else None
    knobs, why = view.space.neighbour(old, rng), "a step in the knobs"
    if suggested is not None:
        knobs, why = view.space.clipped(suggested), "suggested by the study"
    child, why = _affordable(Candidate(parent.candidate.graph, knobs), parent, why, view)
    what = f"{parent.hash[:8]} with {_difference(old, child.knobs)} ({why})"
    return _Child(child, what, (parent.hash,))


def _remade(parent: Known, pool: _Pool, view: SearchView, rng: random.Random) -> _Child | None:
    """The parent's graph edited; knobs for the parent's bytes mostly, else a step away or the
    suggestion."""
    other = pool.other(parent, rng) if rng.random() < 0.3 else None
    graph = parent.candidate.graph
    mutation = mutate(graph, rng) if other is None else cross(graph, other.candidate.graph, rng)
    if mutation is None or mutation.graph.hash in pool.graphs or not ranks_blocks(mutation.graph):
        return None
    if not _teaches(mutation.graph, parent, pool, view):
        return None
    old = parent.candidate.knobs
    draw = rng.random()
    if draw < 0.15 and view.suggestion is not None:
        knobs, why = view.space.clipped(view.suggestion), "suggested by the study"
        child, why = _affordable(Candidate(mutation.graph, knobs), parent, why, view)
    elif draw < 0.3:
        knobs, why = view.space.neighbour(old, rng), "a step in the knobs"
        child, why = _affordable(Candidate(mutation.graph, knobs), parent, why, view)
    else:
        child = Candidate(mutation.graph, old)
        child, why = _at_most(child, _bytes(parent.candidate, view), view) or child, _MATCHED
    what = f"{parent.hash[:8]}: {mutation.what}"
    if child.knobs != old:
        what += f"; {_difference(old, child.knobs)} ({why})"
    return _Child(child, what[:600], (parent.hash, other.hash) if other is not None else (parent.hash,))


def _bytes(candidate: Candidate, view: SearchView) -> float:
    return row_bytes(candidate, view.geometry, view.prompt_tokens or _LENGTH, view.space.layers)


def _at_most(candidate: Candidate, limit: float, view: SearchView) -> Candidate | None:
    """The candidate with the largest budget that reads no more than `limit`; None where there is none."""
    if not candidate.serves(view.geometry):
        return None
    return matched(candidate, limit, view.space, view.geometry, view.prompt_tokens or _LENGTH)


def _affordable(child: Candidate, parent: Known, why: str, view: SearchView) -> tuple[Candidate, str]:
    """The child as it is, unless it reads far more than its parent: then with a smaller topk_val, and without
    dense layers, if that helps."""
    limit = 1.25 * _bytes(parent.candidate, view)
    if not child.serves(view.geometry) or _bytes(child, view) <= limit:
        return child, why
    sparse = Candidate(child.graph, child.knobs.with_(layers_skip=()))
    for tried, how in ((child, ""), (sparse, " in every layer")):
        smaller = _at_most(tried, limit, view)
        if smaller is not None:
            return smaller, f"{why}, with topk_val cut{how} to what the parent reads and a quarter"
    return child, why


def _teaches(graph: FlowGraph, parent: Known, pool: _Pool, view: SearchView) -> bool:
    """Whether a graph may be worth its measurement: it finds needles in made-up rows nearly as often as
    its parent, and it ranks blocks as none of the pool does, or as its parent does for fewer bytes."""
    if needle_recall(graph) < _BROKEN * needle_recall(parent.candidate.graph):
        return False
    if behaviour(graph) not in pool.behaviours:
        return True
    if behaviour(graph) != behaviour(parent.candidate.graph):
        return False
    return _bytes(Candidate(graph, parent.candidate.knobs), view) < _bytes(parent.candidate, view) * 0.995


def _difference(old: Knobs, new: Knobs) -> str:
    """The knobs that changed, in words."""
    changed = [name for name in KNOB_NAMES if getattr(old, name) != getattr(new, name)]
    parts = [
        "another policy"
        if name == "policy"
        else f"{name} {_show(getattr(old, name))} to {_show(getattr(new, name))}"
        for name in changed
    ]
    return ", ".join(parts) or "the same knobs"


def _show(value: object) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
    )


class _Pool:
    """The candidates a parent may be chosen from, with what makes one preferable."""

    def __init__(self, view: SearchView):
        rows = {known.hash: known for known in (*view.best, *view.different)}
        self._rows = list(rows.values())
        self.graphs = {known.candidate.graph.hash for known in self._rows}
        graphs = [known.candidate.graph for known in self._rows]
        self.behaviours = {behaviour(graph) for graph in graphs if ranks_blocks(graph)}
        level = ranks(self._rows)
        space = _crowding_by_front(self._rows, level)
        top = view.dense_accuracy or max((known.accuracy for known in self._rows), default=0.0)
        # Both ends of a front are always open: what answers fewer than half of dense's prompts comes last,
        # and what saves less than half of its bytes.
        self._order = {
            known.hash: (
                known.accuracy < top / 2 or known.bytes > _DEAREST * known.dense_bytes,
                level[i],
                -space[i],
                known.hash,
            )
            for i, known in enumerate(self._rows)
        }

    def parent(self, rng: random.Random) -> Known | None:
        """The winner of a tournament by usefulness, front, then crowding; None while nothing is
        measured."""
        if not self._rows:
            return None
        drawn = rng.sample(self._rows, k=min(_TOURNAMENT, len(self._rows)))
        return min(drawn, key=lambda known: self._order[known.hash])

    def other(self, parent: Known, rng: random.Random) -> Known | None:
        """A candidate with another graph, to cross with."""
        rest = [k for k in self._rows if k.candidate.graph.hash != parent.candidate.graph.hash]
        return rng.choice(rest) if rest else None


def _crowding_by_front(rows: list[Known], level: list[int]) -> list[float]:
    result = [0.0] * len(rows)
    for rank in set(level):
        front = [i for i in range(len(rows)) if level[i] == rank]
        for i, distance in zip(front, crowding([rows[i] for i in front]), strict=True):
            result[i] = min(distance, 2.0)
    return result
