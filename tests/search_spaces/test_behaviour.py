from __future__ import annotations

import random

import pytest

from search_spaces import motifs
from search_spaces.behaviour import behaviour, ranks_blocks
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


def test_the_order_is_that_of_the_runtime() -> None:
    """The made-up rows, ranked by the torch target's program, give the digest's order."""
    import torch

    from search_spaces.behaviour import _rows, _scores

    one = seed_graphs()["gqa_quest_sparse_attention"]
    from search_spaces.behaviour import BLOCKS, ROWS, SIZES

    q, k, _ = _rows()
    blocks = k.unflatten(0, (ROWS, BLOCKS))
    upper, lower = blocks.amax(2), blocks.amin(2)
    bound = torch.maximum(q * upper[:, :, None], q * lower[:, :, None]).sum(-1).amax(-1)
    assert torch.allclose(_scores(one.instantiate(SIZES)), bound)
