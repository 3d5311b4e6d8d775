"""A search's measurements on a model with multi-head latent attention."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from evaluators.executor.base import Job
from evaluators.executor.ruler import RulerEvaluator, ruler_spec
from evaluators.executor.worker import load_factory
from evaluators.measure import combine
from evaluators.measure.dense_kernels import DENSE_KERNELS
from evaluators.measure.evaluate import decode_answers, evaluate, price, reference_lengths
from evaluators.measure.pareto import Outcome, standings
from evaluators.measure.prepare import Prepared
from evaluators.measure.speed import measure_speed
from tests.evaluators.measure.flows import STATEFUL, union
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.flow import load_graph, trace_source
from vortex.graph.model import FlowGraph
from vortex.runtime.hooks import Hooks, ScoreInput
from vortex.runtime.traffic import Traffic

LAYERS, QUERY_HEADS, KV_LORA_RANK, WIDTH = 3, 4, 32, 32 + 16


@pytest.fixture(scope="module")
def quest() -> FlowGraph:
    return load_graph("quest_mla")


def config(**knobs: object) -> VortexConfig:
    return VortexConfig.model_validate({"block_size": 16, "topk_val": 4, **knobs})


def test_the_store_holds_latents(mla: Prepared) -> None:
    pools = mla.search.store.pools
    assert len(pools) == LAYERS
    assert [tuple(data.shape[1:]) for pool in pools for data in pool.stored] == [(WIDTH,)] * LAYERS
    assert mla.excluded == ()
    assert mla.search.dense_accuracy() == dict.fromkeys(mla.search.spec.tasks, 1.0)


def test_a_latent_is_paid_for_once(mla: Prepared, quest: FlowGraph) -> None:
    prompts = mla.search.meta.prompts
    _, dense = price(None, config(), mla.search, prompts)
    assert dense == pytest.approx([reference_lengths(p).mean() * WIDTH * 2 * LAYERS for p in prompts])
    half, _ = price(quest, config(layers_skip=[1]), mla.search, prompts)
    whole, _ = price(quest, config(), mla.search, prompts)
    np.testing.assert_allclose(half - whole, (dense - whole) / LAYERS)


def test_sparse_reads_less_and_loses_something(mla: Prepared, quest: FlowGraph) -> None:
    dense = evaluate(None, config(), mla.search)
    few, many = (evaluate(quest, config(topk_val=k), mla.search) for k in (1, 16))
    assert dense.accuracy == 1.0
    assert few.accuracy < many.accuracy <= 1.0
    assert few.bytes_per_step < many.bytes_per_step < dense.bytes_per_step == few.dense_bytes_per_step


def test_everything_chosen_is_dense(mla: Prepared, quest: FlowGraph) -> None:
    dense, found = evaluate(None, config(), mla.search), evaluate(quest, config(topk_val=64), mla.search)
    assert [s.prediction[:20] for s in found.samples] == [s.prediction[:20] for s in dense.samples]
    assert [s.bytes for s in found.samples] == [s.dense_bytes for s in dense.samples]


def test_a_search_measures_through_its_evaluator(mla: Prepared, quest: FlowGraph) -> None:
    """Graphs and configs travel as JSON: a gate, the rest, and the held-out prompts beside dense."""
    spec = ruler_spec(mla)
    evaluator = load_factory(spec.factory)(spec.settings)
    assert isinstance(evaluator, RulerEvaluator)
    graph, knobs = quest.to_json(), config().model_dump_json()
    gate = evaluator(Job(key="quest", split="gate", graph=graph, config=knobs))
    rest = evaluator(Job(key="quest", split="search", graph=graph, config=knobs, prompts=mla.search.rest))
    whole = evaluate(quest, config(), mla.search)
    assert set(combine(gate, rest).samples) == set(whole.samples)
    heldout = evaluator(Job(key="quest", split="heldout", graph=graph, config=knobs))
    assert heldout.bytes_ratio < 0.6
    assert (heldout.workload, whole.workload) == (mla.heldout.key, mla.search.key)
    dense = evaluator(Job(key="dense", split="heldout"))
    all_blocks = config(topk_val=64).model_dump_json()
    cheat = evaluator(Job(key="cheat", split="heldout", graph=graph, config=all_blocks))
    (standing,) = standings({"cheat": cheat}, {"dense": dense, "quest": heldout})
    assert not standing.wins_over(Outcome.CHEAPER)


@pytest.mark.parametrize(("first", "second"), [(3, 3), (9, 2), (30, 30)])
def test_a_union_is_never_priced_below_what_it_reads(mla: Prepared, first: int, second: int) -> None:
    """Both fields of every scored block, and the latents of the blocks that were chosen, at 2 bytes."""
    graph, workload = trace_source(union(first, second)), mla.search
    lengths = [prompt.tokens for prompt in workload.meta.prompts]
    read: defaultdict[tuple[int, int], float] = defaultdict(float)
    sizes = set()

    def count(given: ScoreInput, positions: torch.Tensor) -> None:
        for row, request in enumerate(given.requests):
            length = lengths[request] + given.step + 1
            n, blocks = -(-length // 16), len(set(positions[row].tolist()))
            tokens = length - 16 * (n - blocks)
            read[request, length] += 2 * WIDTH * (tokens + 2 * (n - 2))
            sizes.add(blocks)

    hooks = Hooks(selected=count)
    decode_answers(graph, config(), workload, range(len(workload)), stop_early=False, hooks=hooks)
    geometry = workload.store.pools[0].geometry(16, QUERY_HEADS)
    traffic = Traffic(graph, geometry, config(), LAYERS, heads=1)
    steps = np.array([length for _, length in read])
    assert (traffic.steps(steps) >= list(read.values())).all()
    assert max(sizes) <= 2 + first + second
    priced, dense = price(graph, config(), workload, workload.meta.prompts)
    assert (priced > dense).all() if first + second > 40 else (priced < dense).all()


@pytest.mark.parametrize("source", [None, STATEFUL, union(3, 3)], ids=["quest", "stateful", "union"])
def test_a_contender_is_timed_beside_dense(mla: Prepared, quest: FlowGraph, source: str | None) -> None:
    graph = trace_source(source) if source else quest
    report = measure_speed(graph, config(), mla.search, repeats=6, long=2048)
    for column in report.columns:
        assert (column.heads, column.group, column.head_dim) == (1, QUERY_HEADS, WIDTH)
        assert column.kv_lora_rank == KV_LORA_RANK
        assert column.dense_kernel in [kernel.name for kernel in DENSE_KERNELS]
        assert 0 < column.ratio.low <= column.ratio.median


def test_a_flow_for_the_other_cache_is_refused(mla: Prepared) -> None:
    with pytest.raises(ConfigError, match="vFlowMLA"):
        evaluate(load_graph("gqa_quest_sparse_attention"), config(), mla.search)
