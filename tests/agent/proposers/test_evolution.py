from __future__ import annotations

from dataclasses import replace

import pytest

from agent.proposers.base import AcceptedChanges, NoProposalError, Proposal, Proposer, SearchView
from agent.proposers.evolution import EvolutionProposer
from agent.proposers.random import RandomProposer
from search_spaces.budget import row_bytes
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from tests.agent.proposers.views import SPACE, known, seeded, traced


def run(proposer: Proposer, count: int) -> list[tuple[Proposal, Candidate]]:
    """A search without measurements: each proposal is traced, remembered, and given a made-up score."""
    view, made = seeded(), []
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
        score = (int(candidate.hash[:6], 16) % 1000) / 1000
        row = known(candidate, proposal.source, score, 0.05 + score / 4, proposer=proposer.name)
        view = replace(view, best=(row, *view.best)[:16])
        made.append((proposal, candidate))
    return made


def test_evolution_changes_graphs_and_never_repeats_itself() -> None:
    made = run(EvolutionProposer(seed=3), 80)
    seeds = {row.candidate.graph.hash for row in seeded().best}
    new_graphs = {candidate.graph.hash for _, candidate in made} - seeds
    kept = 80 - len({candidate.graph.hash for _, candidate in made})
    assert len(new_graphs) > 40
    assert kept > 3
    assert all(proposal.parents for proposal, _ in made)
    assert any(len(proposal.parents) == 2 for proposal, _ in made)


def test_at_least_half_of_the_accepted_children_have_a_new_graph() -> None:
    """Even when graph changes are refused as duplicates all the time, knobs alone do not take over."""
    proposer = EvolutionProposer(seed=1)
    view = seeded(accepted=AcceptedChanges(total=20, graph=10))
    own = {row.candidate.graph.hash for row in view.best}
    for index in range(40):
        proposal = proposer.propose(replace(view, index=index))
        assert traced(proposal).graph.hash not in {
            row.candidate.graph.hash for row in view.best if row.hash in proposal.parents
        }
    free = replace(view, accepted=AcceptedChanges(total=20, graph=20))
    kept = [traced(proposer.propose(replace(free, index=i))).graph.hash in own for i in range(60)]
    assert 5 < sum(kept) < 35


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
    view = seeded(suggestion=Knobs(block_size=32, topk_val=5))
    parents = {row.hash: row.candidate for row in view.best}
    said_matched = 0
    for index in range(60):
        proposal = proposer.propose(replace(view, index=index))
        child, parent = traced(proposal), parents[proposal.parents[0]]
        text = proposal.hypothesis
        assert text.startswith(proposal.parents[0][:8])
        for name in ("block_size", "topk_val", "bos", "eos"):
            before, after = getattr(parent.knobs, name), getattr(child.knobs, name)
            assert (f"{name} {before} to {after}" in text) == (before != after)
        if "suggested by the study" in text and "cut" not in text:
            assert child.knobs == view.suggestion
        if "to what the parent reads and a quarter" in text:
            limit = 1.25 * row_bytes(parent, view.geometry, 2048, view.space.layers)
            assert row_bytes(child, view.geometry, 2048, view.space.layers) <= limit * 1.001
        if "for at most the parent's bytes" in text:
            said_matched += 1
            geometry = view.geometry
            assert row_bytes(child, geometry, 2048) <= row_bytes(parent, geometry, 2048) * 1.001
    assert said_matched > 5


def test_the_first_generation_needs_no_parent() -> None:
    proposal = EvolutionProposer().propose(SearchView(index=0, best=(), space=SPACE))
    assert traced(proposal).graph.hash
    assert proposal.parents == ()


def test_useful_parents_are_preferred() -> None:
    view = seeded()
    useless = [replace(row, accuracy=0.01, bytes=1.0) for row in view.best[:2]]
    view = replace(view, best=(*useless, *view.best[2:]))
    drawn = [EvolutionProposer(seed=9).propose(replace(view, index=i)).parents[0] for i in range(60)]
    assert sum(parent in {row.hash for row in useless} for parent in drawn) < 6


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
