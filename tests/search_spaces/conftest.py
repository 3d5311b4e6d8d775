from __future__ import annotations

import random

import pytest

from search_spaces.generate import random_graph
from search_spaces.seeds import seed_graphs
from vortex.graph.model import FlowGraph


@pytest.fixture(scope="session")
def drawn() -> list[FlowGraph]:
    """Seeds and random flows."""
    rng = random.Random(7)
    return [*seed_graphs().values(), *(random_graph(rng).graph for _ in range(150))]
