"""When steps are dense because that is faster."""

from __future__ import annotations

import pytest
import torch

from tests.vortex.targets.generated import Case
from vortex.config import VortexConfig
from vortex.flow import load_graph
from vortex.graph import Geometry
from vortex.kernels.plan import Planner
from vortex.kernels.plan_count import Crossover
from vortex.runtime import decode as decodes
from vortex.runtime.crossover import KEYS_AND_VALUES, crossover_of, layer_costs
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.device import DeviceStep
from vortex.runtime.pool import KVPool
from vortex.targets.base import LayerCache

ALWAYS = Crossover(dense=0.0, dense_block=0.0, sparse=1.0, score_block=0.0, chosen_block=0.0)


def test_short_contexts_of_small_batches_are_dense() -> None:
    """As measured on an H200 with 64 blocks of 16 (docs/benchmarks/crossover.md): dense up to 2K alone."""
    geometry, config = Geometry(16, 128, 4), VortexConfig(topk_val=61, block_reserved_eos=2, block_size=16)
    graph = load_graph("gqa_quest_sparse_attention", geometry=geometry)
    size = step_size(
        graph, geometry, config, requests=16, heads=8, tokens=32768, share=8, device="cpu"
    )  # fmt: skip
    costs = layer_costs(graph, geometry, size, 2, 2, 4, KEYS_AND_VALUES)
    planner, step = Planner(size, config, crossover=costs), DeviceStep(size, "cpu")

    def dense(batch: int, tokens: int) -> bool:
        planner.run(step, torch.full((batch,), tokens))
        return bool((step.chosen == step.n).all())

    assert [dense(1, tokens) for tokens in (2048, 4096, 8192, 32768)] == [True, False, False, False]
    assert [dense(4, tokens) for tokens in (1040, 2048, 4096)] == [True, False, False]
    assert not dense(16, 2048)


def test_nothing_was_measured_on_a_cpu() -> None:
    geometry, config = Geometry(16, 32, 4), VortexConfig(block_size=16)
    graph = load_graph("block_sparse_attention", geometry=geometry)
    size = step_size(graph, geometry, config, requests=1, heads=1, tokens=256, share=1, device="cpu")
    assert crossover_of(graph, geometry, size, 2, 2, 4, torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("flow", "asked", "crosses"),
    [
        ("block_sparse_attention", True, True),
        ("block_sparse_attention", False, False),
        ("running_avg_block_sparse", True, False),
        ("trading_places", True, False),
    ],
)
def test_flows_with_state_and_those_who_say_so_never_cross(
    flow: str, asked: bool, crosses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State is saved in steps that score blocks: they cannot be left out."""
    monkeypatch.setattr(decodes, "crossover_of", lambda *given: ALWAYS)
    graph, geometry = Case(flow=flow, head_dim=32).graph, Geometry(16, 32, 4)
    config = VortexConfig(topk_val=2, block_size=16, dense_crossover=asked)
    size = step_size(graph, geometry, config, requests=2, heads=1, tokens=256, share=1, device="cpu")
    layers = {0: LayerCache(0, KVPool(torch.zeros(512, 32), torch.zeros(512, 32)))}
    made = DeviceDecode(graph, geometry, config, layers, size, "cpu")
    made.plan(torch.tensor([200, 5]))
    assert made.counts()["crossover_steps"] == crosses
    assert made.counts()["sparse_steps"] == (not crosses)
