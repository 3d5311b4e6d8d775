"""A measurement is a function of the candidate and the prompt alone: not of other prompts in the batch, of
rows that end early, or of what was decoded before. Flows that keep state are where it could go wrong."""

from __future__ import annotations

import pytest

from evaluators.measure.evaluate import evaluate
from evaluators.measure.prepare import Prepared
from evaluators.measure.samples import SampleResult
from evaluators.measure.workload import Workload
from tests.evaluators.measure.flows import STATEFUL, union
from tests.evaluators.self_answered import NEW_TOKENS
from vortex.config import VortexConfig
from vortex.engine.hf import decode
from vortex.flow import load_graph, trace_source
from vortex.graph.model import FlowGraph

CONFIG = VortexConfig(topk_val=4, block_size=16)


@pytest.fixture(scope="module", params=["running average", "stateful mla", "union mla"])
def candidate(request: pytest.FixtureRequest) -> tuple[FlowGraph, Workload]:
    if request.param == "running average":
        return load_graph("running_avg_block_sparse"), request.getfixturevalue("answered")
    prepared: Prepared = request.getfixturevalue("mla")
    return trace_source(STATEFUL if request.param == "stateful mla" else union(3, 3)), prepared.search


@pytest.fixture(scope="module")
def samples(candidate: tuple[FlowGraph, Workload]) -> tuple[SampleResult, ...]:
    graph, workload = candidate
    return evaluate(graph, CONFIG, workload).samples


def test_decoding_is_repeated_exactly(
    candidate: tuple[FlowGraph, Workload], samples: tuple[SampleResult, ...]
) -> None:
    """After another candidate has left its new tokens in the mapping, and on a mapping of one's own."""
    graph, workload = candidate
    other = load_graph("quest_mla" if graph.kind == "mla" else "gqa_quest_sparse_attention")
    assert evaluate(other, CONFIG, workload, stop_early=False).samples != samples
    assert evaluate(graph, CONFIG, workload).samples == samples
    fresh = Workload(workload.path, workload.spec, workload.meta)
    assert evaluate(graph, CONFIG, fresh).samples == samples


def test_prompts_of_a_batch_do_not_touch_each_other(
    candidate: tuple[FlowGraph, Workload], samples: tuple[SampleResult, ...]
) -> None:
    graph, workload = candidate
    backwards = evaluate(graph, CONFIG, workload, workload.positions[::-1]).samples
    assert backwards[::-1] == samples
    for position in workload.positions:
        assert evaluate(graph, CONFIG, workload, [position]).samples == (samples[position],)


def test_rows_that_end_early_leave_the_others_alone(
    candidate: tuple[FlowGraph, Workload], samples: tuple[SampleResult, ...]
) -> None:
    graph, workload = candidate
    limits = [2 + 5 * row % 23 for row in range(len(workload))]
    full, cut = (
        decode(workload.model, workload.store, None, graph, CONFIG, most).tokens
        for most in (NEW_TOKENS, limits)
    )
    assert cut == tuple(row[:limit] for row, limit in zip(full, limits, strict=True))
    whole = evaluate(graph, CONFIG, workload, stop_early=False).samples
    assert [(s.score, s.bytes) for s in whole] == [(s.score, s.bytes) for s in samples]
    assert all(long.prediction.startswith(s.prediction) for long, s in zip(whole, samples, strict=True))


@pytest.mark.parametrize(
    ("stateful", "twin", "fixture"),
    [
        (load_graph("running_avg_block_sparse"), load_graph("block_sparse_attention"), "answered"),
        (trace_source(STATEFUL), load_graph("rope_aware_block_sparse_mla"), "mla"),
    ],
    ids=["gqa", "mla"],
)
def test_state_decides_what_is_read(
    stateful: FlowGraph, twin: FlowGraph, fixture: str, request: pytest.FixtureRequest
) -> None:
    """Beside the same score without its past: the tests above have state to see."""
    found = request.getfixturevalue(fixture)
    workload: Workload = found.search if isinstance(found, Prepared) else found
    one, other = (evaluate(graph, CONFIG, workload, stop_early=False) for graph in (stateful, twin))
    assert [s.prediction for s in one.samples] != [s.prediction for s in other.samples]
