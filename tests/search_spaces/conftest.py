from __future__ import annotations

import random

import pytest

from search_spaces.generate import random_graph
from search_spaces.seeds import seed_graphs
from vortex.graph.model import FlowGraph


@pytest.fixture(scope="session", params=["gqa", "mla"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def drawn(kind: str) -> list[FlowGraph]:
    """Seeds that keep nothing between steps, and random flows."""
    rng = random.Random(7)
    seeds = [
        graph for graph in seed_graphs(kind).values() if all(node.op != "Save" for node in graph.indexer)
    ]
    return [*seeds, *(random_graph(rng, kind).graph for _ in range(150))]
