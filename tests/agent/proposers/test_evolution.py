from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.proposers.base import AcceptedChanges, Known, NoProposalError, Proposal, Proposer, SearchView
from agent.proposers.evolution import EvolutionProposer
from agent.proposers.random import RandomProposer
from search_spaces.budget import share
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from tests.agent.proposers.views import SPACE, known, seeded, traced


def measured(**more: Any) -> SearchView:
    """The seeds with what they read, and accuracies that rise with it."""
    view = seeded(**more)
    rows = []
    for row in view.best:
        part = share(row.candidate, view.geometry, 2048, view.space.layers)
        rows.append(known(row.candidate, row.source, min(0.97, 1.2 * part**0.25), part))
    return replace(view, best=tuple(rows))


def run(proposer: Proposer, count: int) -> list[tuple[Proposal, Candidate]]:
    """A search without measurements: each proposal is traced, remembered, and given a made-up score."""
    view, made = measured(), []
    graphs = {row.hash: row.candidate.graph.hash for row in view.best}
    for index in range(count):
        view = replace(view, index=index, known=graphs.__contains__)
        proposal = proposer.propose(view)
        candidate = traced(proposal)
        assert candidate.hash not in graphs
        assert candidate.serves(view.geometry)
        assert not SPACE.problems(candidate.knobs)
        changed = candidate.graph.hash not in {graphs[parent] for parent in proposal.parents}
        counts = view.accepted
        if proposal.parents:
            view = replace(view, accepted=AcceptedChanges(counts.total + 1, counts.graph + changed))
        graphs[candidate.hash] = candidate.graph.hash
        part = share(candidate, view.geometry, 2048, view.space.layers)
        score = min(0.97, 1.2 * part**0.25) - (int(candidate.hash[:6], 16) % 1000) / 10_000
        row = known(candidate, proposal.source, score, part, proposer=proposer.name)
        view = replace(view, best=(row, *view.best))
        made.append((proposal, candidate))
    return made


def test_evolution_changes_graphs_and_never_repeats_itself() -> None:
    made = run(EvolutionProposer(seed=3), 40)
    seeds = {row.candidate.graph.hash for row in seeded().best}
    new_graphs = {candidate.graph.hash for _, candidate in made} - seeds
    assert 15 < len(new_graphs) < 40
    graphs = {row.hash: row.candidate.graph for row in seeded().best}
    graphs |= {candidate.hash: candidate.graph for _, candidate in made}
    by_parents = [[p for p, _ in made if len(p.parents) == count] for count in (0, 1, 2)]
    fresh, _edited, crosses = by_parents
    assert min(map(len, by_parents)) > 2
    assert all(proposal.hypothesis.startswith("a fresh draw: ") for proposal in fresh)
    for proposal in crosses:
        one, other = proposal.parents
        assert graphs[one].hash != graphs[other].hash
        assert proposal.hypothesis.startswith(f"{one[:8]} x {other[:8]}: ")


def test_at_least_half_of_the_accepted_children_have_a_new_graph() -> None:
    """Even when graph changes are refused as duplicates all the time, knobs alone do not take over."""
    proposer = EvolutionProposer(seed=1)
    view = measured(accepted=AcceptedChanges(total=20, graph=10))
    own = {row.candidate.graph.hash for row in view.best}
    for index in range(20):
        proposal = proposer.propose(replace(view, index=index))
        assert traced(proposal).graph.hash not in {
            row.candidate.graph.hash for row in view.best if row.hash in proposal.parents
        }
    free = replace(view, accepted=AcceptedChanges(total=20, graph=20))
    kept = [traced(proposer.propose(replace(free, index=i))).graph.hash in own for i in range(20)]
    assert 2 < sum(kept) < 18


@pytest.mark.parametrize("proposer", [EvolutionProposer(seed=5), RandomProposer(seed=5)])
def test_equal_seeds_and_views_give_equal_proposals(proposer: Proposer) -> None:
    twin = type(proposer)(seed=5)  # type: ignore[call-arg]
    other = type(proposer)(seed=6)  # type: ignore[call-arg]
    views = [seeded(index) for index in range(8)]
    first = [proposer.propose(view) for view in views]
    assert first == [twin.propose(view) for view in reversed(views)][::-1]
    assert first != [other.propose(view) for view in views]
    assert len({p.source for p in first}) > 4


def test_what_a_hypothesis_says_is_what_was_done() -> None:
    proposer = EvolutionProposer(seed=2)
    view = measured(suggestion=Knobs(block_size=32, topk_val=5))
    parents = {row.hash: row.candidate for row in view.best}
    said = dict.fromkeys(("a step in the knobs", "drawn"), 0)
    for index in range(40):
        proposal = proposer.propose(replace(view, index=index))
        child, text = traced(proposal), proposal.hypothesis
        expected = float(text.rsplit(" at ", 1)[1].split("%")[0]) / 100
        assert expected == pytest.approx(share(child, view.geometry, 2048, view.space.layers), abs=0.001)
        for reason in said:
            said[reason] += reason in text
        if not proposal.parents:
            assert text.startswith("a fresh draw: ")
            continue
        parent = parents[proposal.parents[0]]
        assert text.startswith(proposal.parents[0][:8])
        for name in ("block_size", "topk_val", "bos", "eos"):
            before, after = getattr(parent.knobs, name), getattr(child.knobs, name)
            assert (f"{name} {before} to {after}" in text) == (before != after)
        if "suggested by the study" in text:
            assert child.knobs == view.suggestion
    assert min(said.values()) > 0


def test_the_first_generation_needs_no_parent() -> None:
    proposal = EvolutionProposer().propose(SearchView(index=0, best=(), space=SPACE))
    assert traced(proposal).graph.hash
    assert proposal.parents == ()


def test_graphs_that_do_better_at_equal_bytes_are_preferred() -> None:
    """Measured at several budgets, one graph always lies above the others."""
    view = measured()
    good = next(row.candidate.graph.hash for row in view.best if "quest" in row.source)
    rows = tuple(replace(row, accuracy=row.accuracy - 0.2 * (not _is(row, good))) for row in view.best)
    view = replace(view, best=rows, accepted=AcceptedChanges(10, 1))
    drawn = [EvolutionProposer(seed=9).propose(replace(view, index=i)).parents for i in range(25)]
    of_good = {row.hash for row in rows if _is(row, good)}
    children = [parents for parents in drawn if parents]
    assert sum(bool(of_good & set(parents)) for parents in children) > 0.3 * len(children)
    assert len(of_good) < 0.2 * len(rows)


def _is(row: Known, graph: str) -> bool:
    return row.candidate.graph.hash == graph


def test_a_proposal_is_where_the_front_has_room() -> None:
    """Nothing is to be gained with more bytes than what already answers everything."""
    view = seeded(dense_accuracy=1.0)
    rows = tuple(replace(row, accuracy=1.0, bytes=0.2 * row.dense_bytes) for row in view.best)
    for index in range(8):
        proposal = EvolutionProposer().propose(replace(view, index=index, best=rows))
        assert share(traced(proposal), view.geometry, 2048, view.space.layers) < 0.2


def test_random_draws_cover_the_space_and_are_new() -> None:
    made = run(RandomProposer(seed=0), 60)
    assert all(proposal.parents == () for proposal, _ in made)
    assert len({candidate.graph.hash for _, candidate in made}) > 40
    assert len({candidate.knobs for _, candidate in made}) > 40


@pytest.mark.parametrize("proposer", [EvolutionProposer(), RandomProposer()])
def test_a_search_that_knows_everything_gets_a_reason(proposer: Proposer) -> None:
    view = seeded(known=lambda _hash: True)
    with pytest.raises(NoProposalError, match="no candidate that is new") as caught:
        proposer.propose(view)
    assert not caught.value.stop
    assert proposer.repair(Proposal("", Knobs(), "", "evolution"), "an error") is None
