"""Properties of children of two flows."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from search_spaces.budget import dealt, row_bytes
from search_spaces.candidate import Candidate
from search_spaces.crossover import WAYS, Cross, cross
from search_spaces.expr import fields
from search_spaces.generate import random_graph
from search_spaces.grammar import sensible, settled
from search_spaces.knobs import Knobs
from search_spaces.mutate import mutate
from search_spaces.program import Program, from_graph, to_graph
from search_spaces.seeds import seed_graphs
from tests.search_spaces.checks import check
from vortex.flow import trace_source
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.graph.render import render_flow
from vortex.runtime.traffic import Traffic


def pairs(kind: str, count: int, seed: int) -> list[tuple[FlowGraph, FlowGraph]]:
    rng = random.Random(seed)
    pool = [*seed_graphs(kind).values(), *(random_graph(rng, kind).graph for _ in range(60))]
    return [(one, other) for one, other in (rng.sample(pool, 2) for _ in range(count))]


@pytest.mark.parametrize(("kind", "count"), [("gqa", 500), ("mla", 150)])
def test_children_of_random_pairs_are_valid_and_new(kind: str, count: int) -> None:
    rng, children, unions = random.Random(1), [], 0
    for one, other in pairs(kind, count, seed=8):
        child = cross(one, other, rng)
        if child is None:
            continue
        check(child.graph)
        assert child.graph.kind == kind
        assert child.graph.hash not in {one.hash, other.hash}
        assert child.what
        unions += child.graph.selector.op == "Union"
        children.append(child.graph)
    assert len(children) > 0.9 * count  # the rest: running averages, and parents too large together
    assert len({child.hash for child in children}) > 0.7 * count
    assert unions > count // 50
    for child in children[::5]:
        assert trace_source(render_flow(child, "child")).hash == child.hash


def test_a_child_has_something_of_both_parents() -> None:
    """Its fields come from the parents, unless an edit went into one of them."""
    rng, both = random.Random(2), 0
    for one, other in pairs("gqa", 200, seed=3):
        child = cross(one, other, rng)
        if child is None or "in a field" in child.what or "running" in child.what:
            continue
        mine, theirs, held = (
            {field for score in from_graph(graph).scores for field in fields(score)}
            if graph is not None
            else set()
            for graph in (_or_none(one), _or_none(other), child.graph)
        )
        assert held <= mine | theirs
        both += bool(held & mine) and bool(held & theirs)
    assert both > 60


def _or_none(graph: FlowGraph) -> FlowGraph | None:
    return None if any(node.op == "Save" for node in graph.indexer) else graph


def test_equal_seeds_give_equal_children() -> None:
    def run() -> list[tuple[str, str]]:
        rng = random.Random(6)
        made = [cross(one, other, rng) for one, other in pairs("gqa", 40, seed=1)]
        return [(child.graph.hash, child.what) for child in made if child is not None]

    assert run() == run()


@pytest.mark.parametrize("way", [way for way, _ in WAYS], ids=lambda way: way.__name__)
def test_every_way_works(way: Cross) -> None:
    rng, done = random.Random(0), 0
    scores = [from_graph(random_graph(rng).graph).scores[0] for _ in range(40)]
    for one, other in pairwise(scores):
        edit = way(one, other, rng)
        final = settled(edit.score, rng) if edit is not None else None
        done += final is not None and final != one and sensible(final)
    assert done >= 10


def test_the_summaries_of_one_serve_the_scoring_of_the_other() -> None:
    quest, mean = (seed_graphs()[name] for name in ("gqa_quest_sparse_attention", "block_sparse_attention"))
    found = [cross(mean, quest, random.Random(seed)) for seed in range(60)]
    keys = {from_graph(child.graph).scores[0].key for child in found if child is not None}
    assert "GeMM(Mean{dim=1}(q), <Max{dim=1}(k)>)" in keys


def test_kinds_do_not_mix() -> None:
    gqa, mla = seed_graphs("gqa")["block_sparse_attention"], seed_graphs("mla")["quest_mla"]
    assert cross(gqa, mla, random.Random(0)) is None


def test_a_union_spends_the_budget_of_its_candidate() -> None:
    quest, mean = (seed_graphs()[name] for name in ("gqa_quest_sparse_attention", "block_sparse_attention"))
    one, other = (from_graph(graph).scores[0] for graph in (quest, mean))
    graph = to_graph(Program.union(one, other, (6, 2)))
    knobs = Knobs(topk_val=16, topk_ratio=0.5, policy="return 9;")
    candidate = dealt(Candidate(graph, knobs))
    assert sorted(pick.k or 0 for pick in candidate.graph.selections) == [4, 12]
    assert candidate.knobs == Knobs(topk_val=16)
    assert dealt(candidate).hash == candidate.hash
    geometry = Geometry(head_dim=64, group=4)
    block = 16 * 2 * 64 * 2
    more = dealt(Candidate(graph, Knobs(topk_val=20)))
    assert row_bytes(more, geometry, 2048) - row_bytes(candidate, geometry, 2048) == 4 * block
    careless = Candidate(graph, Knobs(topk_val=1))  # the plan does not bound a union, and does not price it
    assert row_bytes(careless, geometry, 2048) == row_bytes(
        dealt(Candidate(graph, Knobs(topk_val=8))), geometry, 2048
    )
    traffic = Traffic(graph, geometry, careless.config(), layers=3, heads=2)
    assert traffic.steps(np.array([2048]))[0] == 6 * row_bytes(careless, geometry, 2048)
    plain = Candidate(mean, Knobs(topk_val=16))
    assert dealt(plain) is plain
    kept = [mutate(graph, random.Random(seed)) for seed in range(20)]
    assert {m.graph.selector.op for m in kept if m is not None} == {"Union", "topK"}
