"""Evolution over graphs: the proposer that needs no model service.

For every proposal it makes a batch of children: a parent's graph edited, two parents crossed, a parent with
other knobs, now and then a fresh draw, each with several choices of knobs. What a child reads is known in
advance, and a forecast learned from all measurements (`forecast.py`) guesses its accuracy; the child that is
expected to add most to the front is proposed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from agent.proposers.base import Known, NoProposalError, Proposal, SearchView
from agent.proposers.forecast import Forecast
from search_spaces.behaviour import behaviour, needle_recall, ranks_blocks
from search_spaces.budget import dealt, share
from search_spaces.candidate import Candidate
from search_spaces.crossover import cross
from search_spaces.generate import random_graph
from search_spaces.knobs import KNOB_NAMES, Knobs
from search_spaces.mutate import mutate
from vortex.graph.model import FlowGraph

BATCH = 32
"""Children that are made, with all their knobs, for one proposal."""
FRESH, KNOBS_ONLY, CROSSED = 0.25, 0.2, 0.3
"""How often a child is a new draw, its parent with other knobs (as long as that leaves at least half of the
accepted children a new graph), or a cross; the rest are edits of one parent."""

_TRIES = 200
_PRESSURE = 4.0
"""How far down the list of graphs by merit parents are drawn from, on average."""
_LENGTH = 2048
_BROKEN = 0.6
"""Share of its parent's recall in made-up rows below which a child is not measured."""
_CHANCE = 0.2
"""Recall in made-up rows below which a fresh draw is not measured."""


@dataclass(frozen=True)
class _Draft:
    """A graph that may be proposed, and where it comes from."""

    graph: FlowGraph
    what: str
    parents: tuple[Known, ...] = ()


@dataclass(frozen=True)
class _Child:
    candidate: Candidate
    draft: _Draft
    why: str

    @property
    def hypothesis(self) -> str:
        parents = self.draft.parents
        if not parents:
            return f"{self.draft.what[:440]}; knobs: {self.why}"
        text = f"{' x '.join(parent.hash[:8] for parent in parents)}: {self.draft.what}"[:440]
        changed = _difference(parents[0].candidate.knobs, self.candidate.knobs)
        return f"{text}; {changed} ({self.why})" if changed else text


class EvolutionProposer:
    """Deterministic: the proposal depends on the seed and the view alone."""

    name = "evolution"

    def __init__(self, seed: int = 0):
        self._seed = seed

    def propose(self, view: SearchView) -> Proposal:
        from vortex.graph.render import render_flow

        rng = random.Random(f"evolution:{self._seed}:{view.index}")
        pool = _Pool(view)
        batch: list[_Child] = []
        for _ in range(_TRIES):
            draft = _draft(pool, view, rng)
            batch += _children(draft, pool, view, rng) if draft is not None else ()
            if len(batch) >= BATCH or (batch and not pool.graphs):
                break
        if not batch:
            raise NoProposalError(f"{_TRIES} tries gave no candidate that is new")
        child, hope = pool.best_of(batch)
        graph = child.candidate.graph
        return Proposal(
            source=render_flow(graph, f"evolved_{graph.hash[:10]}"),
            knobs=child.candidate.knobs,
            hypothesis=child.hypothesis + hope,
            proposer=self.name,
            parents=tuple(parent.hash for parent in child.draft.parents),
        )

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        return None


def _draft(pool: _Pool, view: SearchView, rng: random.Random) -> _Draft | None:
    """A graph that may be worth its measurement, or None."""
    draw = rng.random()
    parent = pool.parent(rng)
    if parent is None or draw < FRESH:
        drawn = random_graph(rng, view.geometry.kind)
        return pool.worthwhile(_Draft(drawn.graph, f"a fresh draw: {drawn.what}"))
    if draw < FRESH + KNOBS_ONLY:
        kept = _Draft(parent.candidate.graph, "the same graph", (parent,))
        return kept if _may_keep_graph(view) else None
    other = pool.parent(rng) if draw < FRESH + KNOBS_ONLY + CROSSED else None
    if other is None or other.candidate.graph == parent.candidate.graph:
        edit = mutate(parent.candidate.graph, rng)
        return pool.worthwhile(_Draft(edit.graph, edit.what, (parent,))) if edit is not None else None
    child = cross(parent.candidate.graph, other.candidate.graph, rng)
    return pool.worthwhile(_Draft(child.graph, child.what, (parent, other))) if child is not None else None


def _may_keep_graph(view: SearchView) -> bool:
    """Whether one more child with its parent's graph leaves at least half of the accepted ones with a new
    graph."""
    return 2 * view.accepted.graph >= view.accepted.total + 1


def _children(draft: _Draft, pool: _Pool, view: SearchView, rng: random.Random) -> Iterator[_Child]:
    """The graph with each choice of knobs that makes a new candidate for this model."""
    for knobs, why in _knobs(draft, pool, view, rng):
        candidate = dealt(Candidate(draft.graph, knobs))
        if candidate.serves(view.geometry) and not view.known(candidate.hash):
            yield _Child(candidate, draft, why)


def _knobs(draft: _Draft, pool: _Pool, view: SearchView, rng: random.Random) -> Iterator[tuple[Knobs, str]]:
    """Some choices of knobs, each with the reason for it."""
    own = [parent.candidate.knobs for parent in draft.parents]
    if own:
        yield view.space.neighbour(rng.choice(own), rng), "a step in the knobs"
    else:
        yield view.space.sample(rng), "drawn"
    if len(own) > 1:
        yield view.space.clipped(_mixed(own[0], own[1], rng)), "knobs of both parents"
    donor = pool.parent(rng)
    if donor is not None:
        yield view.space.clipped(donor.candidate.knobs), f"the knobs of {donor.hash[:8]}"
    if view.suggestion is not None and rng.random() < 0.5:
        yield view.space.clipped(view.suggestion), "suggested by the study"
    else:
        yield view.space.sample(rng), "drawn"


def _mixed(one: Knobs, other: Knobs, rng: random.Random) -> Knobs:
    """Each knob of either; the budget and its policy stay together."""
    budget = rng.choice((one, other))
    rest = {name: getattr(rng.choice((one, other)), name) for name in ("bos", "eos", "layers_skip")}
    return budget.with_(**rest)


def _length(view: SearchView) -> int:
    return view.prompt_tokens or _LENGTH


def _difference(old: Knobs, new: Knobs) -> str:
    """The knobs that changed, in words."""
    changed = [name for name in KNOB_NAMES if getattr(old, name) != getattr(new, name)]
    return ", ".join(
        "another policy"
        if name == "policy"
        else f"{name} {_show(getattr(old, name))} to {_show(getattr(new, name))}"
        for name in changed
    )


def _show(value: object) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
    )


class _Pool:
    """What was measured: whom to breed from, and what to expect of a child."""

    def __init__(self, view: SearchView):
        self._view = view
        measured = {known.hash: known for known in (*view.measured, *view.best, *view.different)}
        rows = [known for known in measured.values() if known.candidate.graph.kind == view.geometry.kind]
        self.graphs = {known.candidate.graph.hash for known in rows}
        self._behaviours = {
            behaviour(known.candidate.graph) for known in rows if ranks_blocks(known.candidate.graph)
        }
        self._families: list[list[Known]] = []
        self._forecast: Forecast | None = None
        if rows:
            dense = view.dense_accuracy or max(known.accuracy for known in rows)
            self._forecast = Forecast(rows, dense)
            self._families = self._by_merit(rows, self._forecast)

    def _by_merit(self, rows: list[Known], forecast: Forecast) -> list[list[Known]]:
        """The rows of each graph, the graph first that is expected to be the most accurate at equal bytes."""
        shares = sorted(known.bytes / known.dense_bytes for known in rows)
        typical = [shares[len(shares) // 2]] * len(rows)
        merit = forecast.accuracy([known.candidate for known in rows], typical).tolist()
        families: dict[str, list[Known]] = {}
        for _, known in sorted(zip(merit, rows, strict=True), key=lambda one: (-one[0], one[1].hash)):
            families.setdefault(known.candidate.graph.hash, []).append(known)
        return list(families.values())

    def parent(self, rng: random.Random) -> Known | None:
        """A measured candidate, of a better graph more often; None while nothing is measured."""
        if not self._families:
            return None
        at = int(rng.expovariate(1 / _PRESSURE))
        return rng.choice(self._families[min(at, len(self._families) - 1)])

    def worthwhile(self, draft: _Draft) -> _Draft | None:
        """The draft, unless its graph is known, finds needles in made-up rows far less often than its parent,
        or ranks blocks as a known one does without being cheaper."""
        graph = draft.graph
        if graph.hash in self.graphs or not ranks_blocks(graph):
            return None
        parent = draft.parents[0].candidate if draft.parents else None
        least = _BROKEN * needle_recall(parent.graph) if parent is not None else _CHANCE
        if needle_recall(graph) < least:
            return None
        if behaviour(graph) not in self._behaviours:
            return draft
        if parent is None or not ranks_blocks(parent.graph) or behaviour(graph) != behaviour(parent.graph):
            return None
        child = Candidate(graph, parent.knobs)
        if not child.serves(self._view.geometry):
            return None
        return draft if self._share(child) < 0.995 * self._share(parent) else None

    def best_of(self, batch: list[_Child]) -> tuple[_Child, str]:
        """The child that is expected to add most to the front, and in words what is expected of it."""
        if self._forecast is None:
            return batch[0], ""
        candidates = [child.candidate for child in batch]
        shares = [self._share(candidate) for candidate in candidates]
        gains = self._forecast.gain(candidates, shares).tolist()
        at = max(range(len(batch)), key=gains.__getitem__)
        expected = float(self._forecast.accuracy(candidates[at : at + 1], shares[at : at + 1])[0])
        return batch[at], f"; expected: {expected:.0%} at {shares[at]:.1%} of dense attention's bytes"

    def _share(self, candidate: Candidate) -> float:
        view = self._view
        return share(candidate, view.geometry, _length(view), view.space.layers)
