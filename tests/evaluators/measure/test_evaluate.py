"""Candidates measured for real: a random Qwen3, stored prompts, traced flows."""

from __future__ import annotations

import numpy as np
import pytest

from evaluators.measure import Measurement, combine
from evaluators.measure.evaluate import evaluate, price, reference_lengths
from evaluators.measure.pareto import standings
from evaluators.measure.workload import Workload
from vortex.config import VortexConfig
from vortex.flow import build_vflow, trace_flow
from vortex.graph.model import FlowGraph

DENSE_BELOW_256 = "return cached_block_len < 256 ? cached_block_len : 4;"


@pytest.fixture(scope="module")
def quest() -> FlowGraph:
    return trace_flow(build_vflow("gqa_quest_sparse_attention"))


def config(**knobs: object) -> VortexConfig:
    return VortexConfig.model_validate({"block_size": 16, "topk_val": 4, **knobs})


def scores(measurement: Measurement) -> list[float]:
    return [sample.score for sample in measurement.samples]


def test_dense_is_the_yardstick(answered: Workload) -> None:
    dense = evaluate(None, config(), answered)
    assert dense.accuracy == 1.0  # the references are what dense attention says
    assert dense.bytes_per_step == dense.dense_bytes_per_step
    assert dense.split == "heldout"
    assert dense.workload == "answered"


def test_sparse_reads_less_and_loses_something(answered: Workload, quest: FlowGraph) -> None:
    few = evaluate(quest, config(topk_val=1), answered)
    many = evaluate(quest, config(topk_val=20), answered)
    assert few.bytes_per_step < many.bytes_per_step < few.dense_bytes_per_step
    assert few.accuracy < many.accuracy <= 1.0
    assert evaluate(quest, config(topk_val=1), answered).samples == few.samples


@pytest.mark.parametrize("topk", [1, 3, 12])
def test_stopping_early_changes_no_score(answered: Workload, quest: FlowGraph, topk: int) -> None:
    early = evaluate(quest, config(topk_val=topk), answered)
    full = evaluate(quest, config(topk_val=topk), answered, stop_early=False)
    assert scores(early) == scores(full)
    assert [s.bytes for s in early.samples] == [s.bytes for s in full.samples]
    assert sum(s.new_tokens for s in early.samples) < 0.9 * sum(s.new_tokens for s in full.samples)


def test_bytes_are_those_of_the_decode_itself(answered: Workload, quest: FlowGraph) -> None:
    """Counted at the steps that dense attention takes; one that takes the same steps reports the same, and
    a default policy pays next to nothing for the steps that the task allows beyond them."""
    from vortex.engine.hf.decode import decode

    knobs = config(topk_val=6, layers_skip=[1])
    limits = [prompt.dense.tokens for prompt in answered.meta.prompts]
    result = decode(answered.model, answered.store, None, quest, knobs, limits)
    prompts = answered.meta.prompts
    exact = [prompt.model_copy(update={"max_new_tokens": prompt.dense.tokens}) for prompt in prompts]
    traffic, dense = price(quest, knobs, answered, exact)
    assert price(quest, knobs, answered, prompts)[0] == pytest.approx(traffic, rel=0.02)
    same = [i for i, tokens in enumerate(result.tokens) if len(tokens) == limits[i]]
    assert len(same) > len(limits) // 2
    assert traffic[same] == pytest.approx(np.array(result.bytes_per_step)[same])
    assert dense[same] == pytest.approx(np.array(result.dense_bytes_per_step)[same])
    assert len(reference_lengths(answered.meta.prompts[0])) == max(1, limits[0] - 1)


@pytest.mark.parametrize(
    "cheat",
    [{"schedule_policy": DENSE_BELOW_256}, {"layers_skip": [0, 1, 2]}, {"topk_val": 64}],
    ids=["dense below 256 blocks", "all layers skipped", "budget above the prompt"],
)
def test_cheats_are_ranked_as_what_they_are(
    answered: Workload, quest: FlowGraph, cheat: dict[str, object]
) -> None:
    """Dense where it is measured: costs what dense costs, answers as dense does, and wins over nothing."""
    dense = evaluate(None, config(), answered)
    seed = evaluate(quest, config(), answered)
    found = evaluate(quest, config(**cheat), answered)
    assert [s.bytes for s in found.samples] == [s.dense_bytes for s in dense.samples]
    assert found.bytes_per_step == dense.dense_bytes_per_step
    assert scores(found) == scores(dense)
    assert seed.bytes_per_step < dense.bytes_per_step
    (standing,) = standings({"cheat": found}, {"dense": dense, "seed": seed})
    assert standing.wins_over() == ()
    assert not standing.is_win


def test_a_policy_that_is_dense_after_the_reference_steps_pays_for_it(
    answered: Workload, quest: FlowGraph
) -> None:
    """Cheap until dense attention has answered, dense from the next block on: what it reads there counts."""
    prompts = [p.model_copy(update={"max_new_tokens": p.dense.tokens + 100}) for p in answered.meta.prompts]
    turn = max(-(-(p.tokens + p.dense.tokens) // 8) for p in prompts)
    late = f"return cached_block_len > {turn} ? cached_block_len : 6;"
    plain, _ = price(quest, config(block_size=8, schedule_policy="return 6;"), answered, prompts)
    cheat, dense = price(quest, config(block_size=8, schedule_policy=late), answered, prompts)
    reaches = [p.tokens + p.max_new_tokens > 8 * turn + 16 for p in prompts]
    assert any(reaches)
    for one, other, most, reached in zip(plain, cheat, dense, reaches, strict=True):
        assert one <= other <= most
        assert not reached or other > 1.2 * one


def test_a_gate_and_the_rest_are_the_whole(workload: Workload, quest: FlowGraph) -> None:
    whole = evaluate(quest, config(), workload)
    gate = evaluate(quest, config(), workload, workload.gate, split="gate")
    rest = evaluate(quest, config(), workload, workload.rest)
    assert gate.split == "gate"
    merged = combine(gate, rest)
    assert {s.key: s for s in merged.samples} == {s.key: s for s in whole.samples}
    assert merged.accuracy == pytest.approx(whole.accuracy)
    assert merged.bytes_per_step == pytest.approx(whole.bytes_per_step)


def test_search_prompts_cannot_pass_for_heldout(workload: Workload, quest: FlowGraph) -> None:
    with pytest.raises(ValueError, match="'search' split"):
        evaluate(quest, config(), workload, split="heldout")
