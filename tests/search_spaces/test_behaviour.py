from __future__ import annotations

import random

import pytest

from search_spaces import motifs
from search_spaces.behaviour import SIZES, behaviour, made_up, needle_recall, ranks_blocks, scores_of
from search_spaces.expr import Expr, Stored
from search_spaces.grammar import settled
from search_spaces.program import Program, to_graph
from search_spaces.seeds import seed_graphs
from search_spaces.typed import op
from vortex.graph.model import FlowGraph, Stage

RNG = random.Random(0)
CENTROID = Stored(motifs.mean(RNG))


def indexer(name: str, *operands: Expr, **attrs: float) -> Expr:
    return op(Stage.INDEXER, name, *operands, **attrs)


def graph(score: Expr) -> FlowGraph:
    final = settled(score, random.Random(0))
    assert final is not None
    return to_graph(Program(final))


MEAN = indexer("GeMM", indexer("Mean", motifs.Q, dim=1), CENTROID)


@pytest.mark.parametrize(
    "same",
    [
        indexer("GeMM", indexer("Sum", motifs.Q, dim=1), CENTROID),
        indexer("Mean", indexer("GeMM", motifs.Q, CENTROID), dim=2),
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
        indexer("Max", indexer("GeMM", motifs.Q, CENTROID), dim=2),
        indexer("Add_Mul", MEAN, beta=-1.0),
        indexer("GeMM", indexer("Mean", motifs.Q, dim=1), Stored(motifs.midrange(RNG))),
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


def test_seeds_differ_but_for_the_quick_start() -> None:
    found = {name: behaviour(one) for name, one in seed_graphs().items()}
    assert found.pop("quick_start") == found["block_sparse_attention"]
    assert len(set(found.values())) == 3


def test_scores_are_those_of_the_formula() -> None:
    import torch

    rows = made_up(rows=3, blocks=24)
    quest = seed_graphs()["gqa_quest_sparse_attention"].instantiate(SIZES)
    upper, lower = rows.k.amax(2), rows.k.amin(2)
    bound = torch.maximum(rows.q * upper[:, :, None], rows.q * lower[:, :, None]).sum(-1).amax(-1)
    assert torch.allclose(scores_of(quest, rows), bound)


def test_needles_are_found_by_what_looks_for_them() -> None:
    assert needle_recall(seed_graphs()["gqa_quest_sparse_attention"]) > 0.4
    assert needle_recall(graph(MEAN)) > 0.3
    assert needle_recall(graph(indexer("Add_Mul", MEAN, beta=-1.0))) < 0.15
    lost = indexer("GeMM", indexer("Abs", motifs.Q), Stored(motifs.mean(RNG)))
    assert needle_recall(graph(lost)) < needle_recall(graph(MEAN)) / 2
