"""Throughput and latency with the real engine: what is counted, not how fast it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluators.serving.engine import ServingOptions
from evaluators.serving.job import EngineJob, run_job
from evaluators.serving.latency import LoadPlan
from evaluators.serving.report import ServingReport, read_speed
from evaluators.serving.throughput import DecodePlan
from evaluators.serving.timing import TimingOptions, open_flow, time_candidate
from tests.sgl.engines import VARIABLES
from tests.sgl.models import LAYERS
from vortex.config import VortexConfig

BLOCK, HEADS = 16, 2
CHOSEN = 4
CONFIG = VortexConfig(topk_val=CHOSEN - 2, block_size=BLOCK, dtype="float32")
OPTIONS = ServingOptions(
    device="cpu",
    attention_backend="torch_native",
    dtype="float32",
    page_size=BLOCK,
    max_total_tokens=4096,
    extra={"log_level": "error", "sleep_on_idle": True, "disable_overlap_schedule": True},
)
TIMING = TimingOptions(lengths=(150,), batch=3, new=20, repeats=2, timeout=600)
TIMEOUT = 600.0


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Before the engines start; they inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def report(model_path: Path) -> ServingReport:
    flow = open_flow("gqa_quest_sparse_attention", CONFIG, model_path, OPTIONS)
    found = read_speed(time_candidate(flow.read(), CONFIG, model_path, OPTIONS, TIMING))
    assert isinstance(found, ServingReport)
    return found


def test_dense_and_sparse_had_the_same_requests(report: ServingReport) -> None:
    (dense,), (sparse,) = report.dense, report.sparse
    for run in (dense, sparse):
        (point,) = run.decode
        assert (point.tokens_in, point.tokens_out, point.batch) == (150, 20, 3)
        assert len(point.step_ms) == len(point.published) == TIMING.repeats
        assert min(*point.step_ms, *point.published) > 0
        assert run.engine.name == "cpu, SGLang 0.5.16"
        assert run.engine.mode == "torch_native, no CUDA graphs"
        assert not run.engine.overlap_schedule  # so that counts are exact
    (compared,) = report.comparisons
    assert compared.ratio.low <= compared.ratio.median <= compared.ratio.high


def test_the_sparse_run_says_what_it_read(report: ServingReport) -> None:
    (dense,), (sparse,) = report.dense, report.sparse
    assert dense.decode[0].work is None
    work = sparse.decode[0].work
    assert work is not None
    assert work.rows_sparse == TIMING.batch * HEADS * TIMING.repeats * (TIMING.new - 1)
    assert work.rows_dense == 0
    assert work.sparse_steps == work.decode_steps
    # The first token of each request is prefill's; the context grows from 151 tokens on.
    blocks = sum(-(-(150 + step) // BLOCK) for step in range(1, TIMING.new))
    rows = TIMING.batch * HEADS * TIMING.repeats * LAYERS
    assert work.blocks_total == blocks * rows
    assert work.blocks_read == CHOSEN * (TIMING.new - 1) * rows


@pytest.mark.full
def test_flows_share_an_engine_under_load_and_fail_alone(model_path: Path) -> None:
    names = ("block_sparse_attention", "gqa_quest_sparse_attention")
    first, last = (open_flow(name, CONFIG, model_path, OPTIONS) for name in names)
    config = CONFIG.model_copy(update={"topk_val": 60})  # reads every block: it would be dense
    whole = first.model_copy(update={"name": "whole", "config": config})
    plan = LoadPlan(rates=(20.0,), requests=6, length=100, new=6)
    job = EngineJob(model=model_path, options=OPTIONS, flows=(first, whole, last), load=plan)
    answer = run_job(job, TIMEOUT)
    (failure,) = answer.failed
    assert failure.flow == "whole"
    assert "decode steps was sparse: the budget covers every block" in failure.reason
    assert [run.flow for run in answer.runs] == list(names)
    assert answer.runs[0].graph != answer.runs[1].graph
    for run in answer.runs:
        (point,) = run.load
        assert (point.requests, point.tokens_in, point.tokens_out) == (6, 100, 6)
        assert 0 < point.per_token_ms.p50 <= point.per_token_ms.p95
        assert 0 < point.first_token_ms.p50 <= point.first_token_ms.p95
        assert point.work is not None
        assert point.work.rows_sparse == 6 * HEADS * 5
        assert 0 < point.work.share < 1


@pytest.mark.parametrize(
    ("extra", "timeout", "said"),
    [({"no_such_option": 1}, TIMEOUT, "no_such_option"), ({}, 0.5, "took more than 0.5 s")],
)
def test_an_engine_that_cannot_be_measured_says_why(
    model_path: Path, extra: dict[str, object], timeout: float, said: str
) -> None:
    broken = OPTIONS.model_copy(update={"extra": extra})
    plan = DecodePlan(lengths=(60,), batch=2, new=8)
    answer = run_job(EngineJob(model=model_path, options=broken, decode=plan), timeout)
    assert answer.runs == ()
    assert answer.failed[0].flow == "dense (torch_native)"
    assert said in answer.failed[0].reason
