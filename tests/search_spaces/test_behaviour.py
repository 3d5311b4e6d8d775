from __future__ import annotations

import random

import pytest

from search_spaces import motifs
from search_spaces.behaviour import (
    SIZES,
    behaviour,
    made_up,
    needle_recall,
    ranking,
    ranks_blocks,
    scores_of,
    turns,
)
from search_spaces.expr import Expr, Stored
from search_spaces.grammar import settled
from search_spaces.program import Program, from_graph, to_graph
from search_spaces.seeds import seed_graphs
from search_spaces.typed import op
from vortex.graph.model import FlowGraph, Stage

RNG, GQA = random.Random(0), motifs.LEAVES["gqa"]
CENTROID = Stored(motifs.mean(RNG, GQA))


def indexer(name: str, *operands: Expr, **attrs: float) -> Expr:
    return op(Stage.INDEXER, name, *operands, **attrs)


def graph(score: Expr) -> FlowGraph:
    final = settled(score, random.Random(0))
    assert final is not None
    return to_graph(Program.top(final))


MEAN = indexer("GeMM", indexer("Mean", GQA.q, dim=1), CENTROID)


@pytest.mark.parametrize(
    "same",
    [
        indexer("GeMM", indexer("Sum", GQA.q, dim=1), CENTROID),
        indexer("Mean", indexer("GeMM", GQA.q, CENTROID), dim=2),
        indexer("Sigmoid", MEAN, beta=-0.05),
        indexer("Add_Mul", MEAN, beta=3.0, alpha=-7.0),
        indexer("Normalize", MEAN),
    ],
    ids=["sum", "after", "sigmoid", "affine", "normalize"],
)
def test_the_same_ranking_is_the_same_behaviour(same: Expr) -> None:
    assert graph(same).hash != graph(MEAN).hash
    assert behaviour(graph(same)) == behaviour(graph(MEAN))


@pytest.mark.parametrize(
    "other",
    [
        indexer("Max", indexer("GeMM", GQA.q, CENTROID), dim=2),
        indexer("Add_Mul", MEAN, beta=-1.0),
        indexer("GeMM", indexer("Mean", GQA.q, dim=1), Stored(motifs.midrange(RNG, GQA))),
        indexer("Abs", MEAN),
    ],
    ids=["max", "negated", "midrange", "abs"],
)
def test_another_ranking_is_another_behaviour(other: Expr) -> None:
    assert ranks_blocks(graph(other))
    assert behaviour(graph(other)) != behaviour(graph(MEAN))


@pytest.mark.parametrize(
    "idle",
    [
        indexer("MaskSlice", MEAN, start=0, end=1, dim=2),
        indexer("WhereEqual", MEAN, MEAN),
        indexer("Log", indexer("Add_Mul", indexer("Abs", MEAN), beta=-1.0)),
    ],
    ids=["constant", "all equal", "nan"],
)
def test_what_ranks_nothing_is_told(idle: Expr) -> None:
    assert behaviour(graph(idle)) is None
    assert not ranks_blocks(graph(idle))


def test_twins_among_the_seeds_are_known() -> None:
    """In blocks of 16 tokens, in the first step."""
    found = {name: behaviour(one) for name, one in seed_graphs().items()}
    mean = ("centered_block_sparse_attention", "lserve_centroid_sparse_attention", "running_avg_block_sparse")
    assert {found[name] for name in (*mean, "quick_start")} == {found["block_sparse_attention"]}
    assert found["lserve_sparse_attention"] == found["gqa_quest_sparse_attention"]
    assert len(set(found.values())) == 5


def test_scores_are_those_of_the_formula() -> None:
    import torch

    rows = made_up(SIZES["gqa"], rows=3)
    quest = seed_graphs()["gqa_quest_sparse_attention"].instantiate(SIZES["gqa"])
    upper, lower = rows.stored["k"].amax(2), rows.stored["k"].amin(2)
    bound = torch.maximum(rows.q * upper[:, :, None], rows.q * lower[:, :, None]).sum(-1).amax(-1)
    assert torch.allclose(scores_of(quest, rows)[0], bound)
    rows = made_up(SIZES["mla"], rows=3)
    content = seed_graphs("mla")["rope_unaware_block_sparse_mla"].instantiate(SIZES["mla"])
    product = (rows.q.mean(2)[..., :16] * rows.stored["latent"].mean(2)[..., :16]).sum(-1)
    assert torch.allclose(scores_of(content, rows)[0], product)


def test_rankings_of_similar_graphs_are_similar() -> None:
    quest, mean, heads = (
        ranking(seed_graphs()[name])
        for name in ("gqa_quest_sparse_attention", "block_sparse_attention", "gqa_block_sparse_attention")
    )
    assert quest @ quest == pytest.approx(1.0)
    assert ranking(graph(indexer("Add_Mul", MEAN, beta=-1.0))) @ mean == pytest.approx(-1.0)
    assert 0.1 < mean @ quest < mean @ heads < 1.0


def test_a_union_chooses_what_either_chooses() -> None:
    import torch

    rows = made_up(SIZES["gqa"], rows=4)
    first, second = (
        from_graph(seed_graphs()[n]).scores[0] for n in ("gqa_quest_sparse_attention", "quick_start")
    )
    both = to_graph(Program.union(first, second, (6, 3)))
    scores = scores_of(both.instantiate(SIZES["gqa"]), rows)
    chosen = turns(both, scores) <= 1.0
    for row in range(4):
        wanted = {
            int(at)
            for score, pick in zip(scores, both.selections, strict=True)
            for at in score[row].topk(pick.k or 0).indices
        }
        assert set(torch.nonzero(chosen[row]).flatten().tolist()) == wanted


def test_needles_are_found_by_what_looks_for_them() -> None:
    assert needle_recall(seed_graphs()["gqa_quest_sparse_attention"]) > 0.4
    assert needle_recall(graph(MEAN)) > 0.3
    assert needle_recall(graph(indexer("Add_Mul", MEAN, beta=-1.0))) < 0.15
    lost = indexer("GeMM", indexer("Abs", GQA.q), Stored(motifs.mean(RNG, GQA)))
    assert needle_recall(graph(lost)) < needle_recall(graph(MEAN)) / 2
