"""RULER through a real engine: the transformers engine's answers and bytes, and an engine that dies costs the
job in flight."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.views.report import Report
from evaluators.executor import Job, Journal, Limits, LocalExecutor, Outcome
from evaluators.measure import Measurement, combine
from evaluators.measure.evaluate import evaluate
from evaluators.measure.workload import Workload
from evaluators.probe import PROBE_PATH
from evaluators.serving.engine import ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.prepare import ServedPrepared, prepare_served
from evaluators.serving.ruler import ServedRulerEvaluator, check_sparse
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.flow import load_graph
from vortex.graph.model import FlowGraph

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("niah_single_1", "vt")
CONFIG = VortexConfig(block_size=16, topk_val=6, layers_skip=(0,))
FLOWS = ("block_sparse_attention", "gqa_quest_sparse_attention", "running_avg_block_sparse")


def no_dense(_spec: object) -> Measurement:
    raise AssertionError("the probe has a card: nothing is measured before the search")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> ServedPrepared:
    options = ServingOptions.for_machine(page_size=64, extra={"max_running_requests": 4})
    cache = tmp_path_factory.mktemp("cache")
    sizes = {"length": 1024, "samples": 2, "heldout_samples": 2, "gate": 1}
    return prepare_served(PROBE_PATH, options, no_dense, **sizes, tasks=TASKS, cache=cache)


@pytest.fixture(scope="module")
def evaluator(prepared: ServedPrepared) -> Iterator[ServedRulerEvaluator]:
    opened = ServedRulerEvaluator(prepared.settings)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def workload(prepared: ServedPrepared, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """The same prompts for the transformers engine."""
    return Workload.ensure(prepared.settings.search, tmp_path_factory.mktemp("hf"))


def test_the_answers_are_those_of_the_other_engine(
    evaluator: ServedRulerEvaluator, workload: Workload, prepared: ServedPrepared
) -> None:
    """Both compute in float32. State that a flow keeps, skipped layers and shared prefixes included."""
    for flow in (None, *FLOWS):
        graph = None if flow is None else load_graph(flow)
        ours = evaluator.measure(graph, CONFIG, "search")
        theirs = evaluate(graph, CONFIG, workload)
        assert ours.samples == theirs.samples, flow
        assert (ours.engine, ours.device) == (prepared.options.label, "cpu")
        assert ours.workload == prepared.search.key != theirs.workload
    dense = evaluator.measure(None, CONFIG, "search")
    assert dense.accuracy > 0.8
    assert dense.environment.version_of("sglang") == "0.5.16"


def test_gate_rest_and_heldout(evaluator: ServedRulerEvaluator, prepared: ServedPrepared) -> None:
    graph = load_graph(FLOWS[1])
    whole = evaluator.measure(graph, CONFIG, "search")
    gate = evaluator.measure(graph, CONFIG, "gate")
    rest = evaluator.measure(graph, CONFIG, "search", prepared.search.rest)
    assert set(combine(gate, rest).samples) == set(whole.samples)
    heldout = evaluator.measure(graph, CONFIG, "heldout")
    assert heldout.workload == prepared.heldout_key
    assert heldout.split == "heldout"
    with pytest.raises(ConfigError, match="vFlow"):
        evaluator.measure(load_graph("quest_mla"), CONFIG, "search")
    assert evaluator.measure(graph, CONFIG, "search").samples == whole.samples


def test_what_ran_densely_is_no_measurement(evaluator: ServedRulerEvaluator) -> None:
    """The counters of a real decode are held against plans that it did not follow."""
    import numpy as np

    graph, other = load_graph(FLOWS[0]), load_graph(FLOWS[1])
    evaluator.measure(graph, CONFIG, "search")
    counters = evaluator.engine.counters()
    assert counters.rows_sparse > 0
    short, long = [np.arange(900, 905)], [np.arange(900, 2000)]
    check_sparse(counters, graph, CONFIG, 3, 2, short)
    with pytest.raises(ServingError, match="partly dense"):
        check_sparse(counters, graph, CONFIG, 3, 2, long)
    with pytest.raises(ServingError, match=f"not {other.hash[:12]}"):
        check_sparse(counters, other, CONFIG, 3, 2, short)
    with pytest.raises(ServingError, match="in 3 layers, not"):
        check_sparse(counters, graph, CONFIG, 4, 2, short)


def as_job(key: str, graph: FlowGraph) -> Job:
    return Job(key=key, split="search", graph=graph.to_json(), config=CONFIG.model_dump_json())


def measured(outcomes: list[Outcome]) -> Measurement:
    (outcome,) = outcomes
    assert outcome.measurement is not None, outcome.reason
    return outcome.measurement


def schedulers(worker: int) -> list[psutil.Process]:
    children = psutil.Process(worker).children(recursive=True)
    return [child for child in children if "scheduler" in "".join(child.cmdline())]


def running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.full
def test_an_engine_that_is_killed_costs_the_job_in_flight(prepared: ServedPrepared, tmp_path: Path) -> None:
    graph = load_graph(FLOWS[0])
    limits = Limits(timeout=120.0, start_timeout=300.0, attempts=1)
    journal = Journal(tmp_path / "journal.jsonl")
    family: list[psutil.Process] = []
    with LocalExecutor(prepared.evaluator, workers=1, limits=limits, journal=journal.path) as executor:
        executor.submit(as_job("before", graph))
        before = measured(executor.wait(300.0))
        (worker,) = executor.pids()
        family += psutil.Process(worker).children(recursive=True)
        (scheduler,) = schedulers(worker)
        scheduler.suspend()  # so that the next job is in its middle for certain
        executor.submit(as_job("struck", graph))
        while ("start", "struck") not in {(entry.event, entry.key) for entry in journal.read()}:
            time.sleep(0.02)
        scheduler.kill()
        executor.submit(as_job("after", graph))
        (struck,) = executor.wait(60.0)
        assert (struck.job.key, struck.status, struck.failure) == ("struck", "failed", "killed")
        assert f"the engine's process {scheduler.pid} died" in str(struck.reason)
        after = measured(executor.wait(300.0))
        assert after.samples == before.samples
        (replaced,) = executor.pids()
        assert replaced != worker
        family += psutil.Process(replaced).children(recursive=True)
        assert len(schedulers(replaced)) == 1
    until = time.monotonic() + 10.0
    while any(map(running, family)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [process for process in family if running(process)]


@pytest.mark.full
def test_a_search_from_the_command_line(tmp_path: Path) -> None:
    """A model without a card: an engine of its own measures densely which tasks count."""
    model = tmp_path / "model"
    model.mkdir()
    for file in PROBE_PATH.iterdir():
        if file.name != "card.json":
            (model / file.name).symlink_to(file)
    small = [
        *("--length", "512", "--prompts-per-task", "2", "--heldout-per-task", "2", "--gate-per-task", "1"),
        *("--contenders", "0", "--tasks", "niah_single_1,vt", "--budget", "3", "--proposer", "evolution"),
    ]
    command = [sys.executable, "-m", "agent.search", "--engine", "sglang", "--executor", "local", "--json"]
    told = subprocess.run(
        [*command, "--model", str(model), "--runs-dir", str(tmp_path / "runs"), *small],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=550,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    report = Report.model_validate_json(told.stdout)
    assert report.tally.measured == 3
    assert report.labels["device"] == "cpu, SGLang 0.5.16, torch_native, float32"
    assert all(row.heldout for row in report.rows)
