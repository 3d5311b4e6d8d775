"""The contract of `Executor`, for every executor."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from evaluators.executor import (
    EvaluatorSpec,
    Executor,
    ExecutorError,
    Job,
    Journal,
    Limits,
    LocalExecutor,
    Outcome,
    RayExecutor,
)
from evaluators.executor.ray import RaySession
from evaluators.executor.ruler import ruler_spec
from evaluators.measure import combine
from evaluators.measure.evaluate import evaluate
from evaluators.measure.prepare import Prepared
from evaluators.measure.workload import Workload
from tests.evaluators.executor.processes import alive, eventually
from vortex.config import VortexConfig
from vortex.flow import build_vflow, trace_flow

MIB = 2**20
KINDS = {"local": LocalExecutor, "ray": RayExecutor}
MODULE = "tests.evaluators.executor.misbehaving"
Make = Callable[..., Executor]


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    session = RaySession(2, gpus=2)  # Ray counts GPUs, it does not look for them
    yield
    session.close()


@pytest.fixture(params=["local", "ray"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens executors with the evaluator of these tests, and checks afterwards that no worker is left."""
    if request.param == "ray":
        request.getfixturevalue("ray_session")
    opened: list[Executor] = []
    seen: set[int] = set()

    def build(workers: int = 2, factory: str = "factory", spec: EvaluatorSpec | None = None) -> Executor:
        settings = json.dumps({"folder": str(tmp_path)})
        bounds = Limits(timeout=20.0, memory_bytes=400 * MIB)
        executor: Executor = KINDS[request.param](
            spec or EvaluatorSpec(factory=f"{MODULE}:{factory}", settings=settings),
            workers=workers,
            limits=bounds,
            journal=tmp_path / "journal.jsonl",
        )
        opened.append(executor)
        return executor

    yield build
    for executor in opened:
        seen.update(executor.pids())
        executor.close()
    assert eventually(lambda: not any(alive(pid) for pid in seen))


def job(key: str, timeout: float | None = None) -> Job:
    return Job(key=key, split="search", timeout=timeout)


def drain(executor: Executor) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    while executor.pending:
        for outcome in executor.wait(60.0):
            assert outcome.job.key not in outcomes
            outcomes[outcome.job.key] = outcome
    return outcomes


def test_jobs_are_measured_in_worker_processes_that_stay_open(make: Make) -> None:
    executor = make()
    for i in range(12):
        executor.submit(job(f"ok:{i}"))
    assert executor.pending == 12
    outcomes = drain(executor)
    assert executor.pending == 0
    assert executor.wait(5.0) == []
    measured = [o.measurement for o in outcomes.values() if o.measurement]
    assert len(measured) == 12
    assert all(
        o.status == "done" and o.attempts == 1 and o.executor == executor.name for o in outcomes.values()
    )
    makers = {int(m.model) for m in measured}
    assert makers == {o.worker_pid for o in outcomes.values()}
    assert os.getpid() not in makers
    assert makers <= set(executor.pids())
    assert max(m.length for m in measured) > 1  # an evaluator served several jobs
    if executor.name == "ray":
        assert all(
            "ray::" in psutil.Process(pid).name() + " ".join(psutil.Process(pid).cmdline()) for pid in makers
        )


def test_a_broken_evaluation_costs_itself_only(make: Make) -> None:
    """Every way to break, among healthy jobs: each is tried twice, and every healthy job is measured."""
    executor = make()
    for key in ("ok:1", "killed:", "ok:2", "hog:", "ok:3", "error:that", "ok:4", "exit:", "ok:5"):
        executor.submit(job(key))
    executor.submit(job("hang:", timeout=0.5))
    executor.submit(job("ok:6"))
    outcomes = drain(executor)
    assert {o.status for key, o in outcomes.items() if key.startswith("ok")} == {"done"}
    failures = {key: (o.failure, o.attempts) for key, o in outcomes.items() if o.status == "failed"}
    assert failures == {
        "killed:": ("killed", 2),
        "hog:": ("memory", 2),
        "error:that": ("error", 1),  # it would come again
        "exit:": ("killed", 2),
        "hang:": ("timeout", 2),
    }
    assert "0.5 s" in str(outcomes["hang:"].reason)
    assert "out of memory" in str(outcomes["hog:"].reason)
    assert "ValueError: cannot do that" in str(outcomes["error:that"].reason)
    if executor.name == "local":
        assert "SIGKILL" in str(outcomes["killed:"].reason)
        assert "status 7: last words" in str(outcomes["exit:"].reason)


def test_what_breaks_once_is_measured_in_the_retry(make: Make, tmp_path: Path) -> None:
    executor = make(workers=1)
    for key in ("once:killed:a", "once:hog:b"):
        executor.submit(job(key))
    executor.submit(job("once:hang:c", timeout=1.0))
    outcomes = drain(executor)
    assert all(o.status == "done" and o.attempts == 2 for o in outcomes.values())
    events = [(e.event, e.key) for e in Journal(tmp_path / "journal.jsonl").read()]
    assert events.count(("start", "once:killed:a")) == 2
    assert events.count(("finish", "once:killed:a")) == 1


def test_a_worker_killed_from_outside_is_replaced(make: Make) -> None:
    executor = make(workers=1)
    executor.submit(job("ok:1"))
    first = drain(executor)["ok:1"].worker_pid
    assert first is not None
    executor.submit(job("once:sleep:30"))
    time.sleep(0.3)
    os.kill(first, signal.SIGKILL)
    outcome = drain(executor)["once:sleep:30"]
    assert outcome.status == "done"
    assert outcome.attempts == 2
    assert outcome.worker_pid != first
    assert not alive(first)


def test_wait_times_out_and_polls(make: Make) -> None:
    executor = make(workers=1)
    executor.submit(job("sleep:1.0"))
    assert executor.wait(0) == []
    begin = time.monotonic()
    assert executor.wait(0.2) == []
    assert 0.15 < time.monotonic() - begin < 1.0
    assert [o.job.key for o in executor.wait(30.0)] == ["sleep:1.0"]


def test_work_goes_on_while_the_driver_does_something_else(make: Make) -> None:
    executor = make(workers=1)
    for i in range(3):
        executor.submit(job(f"ok:{i}"))
    first = executor.wait(30.0)
    time.sleep(0.5)
    assert len(first) + len(executor.wait(0)) == 3


def test_an_evaluator_that_cannot_be_opened_is_said_at_once(make: Make) -> None:
    executor = make(workers=1, factory="broken")
    executor.submit(job("ok:1"))
    with pytest.raises(ExecutorError, match="no model in"):
        executor.wait(60.0)


def test_closing_drops_what_is_running(make: Make) -> None:
    executor = make()
    executor.submit(job("ok:1"))
    drain(executor)
    pids = executor.pids()
    executor.submit(job("hang:"))
    executor.submit(job("ok:2"))
    time.sleep(0.1)
    executor.close()
    assert eventually(lambda: not any(alive(pid) for pid in pids))
    with pytest.raises(ExecutorError, match="closed"):
        executor.submit(job("ok:3"))
    executor.close()


def test_a_subset_of_prompts_reaches_the_worker(make: Make) -> None:
    executor = make(workers=1)
    executor.submit(Job(key="ok:1", split="gate", prompts=(4, 7)))
    measurement = drain(executor)["ok:1"].measurement
    assert measurement is not None
    assert measurement.split == "gate"
    assert [s.prompt for s in measurement.samples] == [4, 7]


def test_what_a_worker_started_ends_with_it(make: Make, tmp_path: Path) -> None:
    executor = make(workers=1)
    executor.submit(job("family:hang", timeout=0.5))
    assert drain(executor)["family:hang"].failure == "timeout"
    child = int((tmp_path / "child").read_text())
    assert eventually(lambda: not alive(child))


def test_what_a_worker_started_ends_also_where_the_worker_was_killed(tmp_path: Path) -> None:
    settings = json.dumps({"folder": str(tmp_path)})
    with LocalExecutor(EvaluatorSpec(factory=f"{MODULE}:factory", settings=settings), workers=1) as executor:
        executor.submit(job("family:killed"))
        assert drain(executor)["family:killed"].failure == "killed"
    child = int((tmp_path / "child").read_text())
    assert eventually(lambda: not alive(child))


def test_every_worker_has_gpus_of_its_own(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is replaced leaves them to the next one. CUDA could not start under a limit of address
    space."""
    monkeypatch.setattr("evaluators.executor.local.visible", lambda: ("0", "1"))
    settings = json.dumps({"folder": str(tmp_path)})
    spec = EvaluatorSpec(factory=f"{MODULE}:factory", settings=settings, gpus=1)
    executor = make(workers=2, spec=spec)
    executor.submit(job("ok:1"))
    drain(executor)
    assert eventually(lambda: len(executor.pids()) == 2, 60.0)
    before = set(executor.pids())
    executor.submit(job("killed:"))
    drain(executor)
    assert eventually(lambda: len(executor.pids()) == 2 and set(executor.pids()) != before, 60.0)
    executor.submit(job("sleep:1.0"))
    executor.submit(job("sleep:1.1"))
    measured = [o.measurement for o in drain(executor).values() if o.measurement]
    assert {int(m.model) for m in measured} == set(executor.pids())
    assert {m.device for m in measured} == {"0", "1"}
    assert {m.seconds for m in measured} == {float(resource.getrlimit(resource.RLIMIT_AS)[0])}


def test_too_few_gpus_are_said() -> None:
    spec = EvaluatorSpec(factory=f"{MODULE}:factory", gpus=64)
    with pytest.raises(ExecutorError, match="2 workers need 128 GPUs"):
        LocalExecutor(spec, workers=2)


def test_candidates_are_measured_in_workers(make: Make, workload: Workload, cache: Path) -> None:
    """The evaluator of a search: a graph and its config as JSON, the same result as in this process."""
    graph = trace_flow(build_vflow("block_sparse_attention"))
    config = VortexConfig.model_validate({"block_size": 16, "topk_val": 4})
    prepared = Prepared(workload, workload.spec.heldout(samples=1), (), cache)
    executor = make(workers=1, spec=ruler_spec(prepared))
    document = config.model_dump_json()
    executor.submit(Job(key="a", split="gate", graph=graph.to_json(), config=document))
    executor.submit(
        Job(key="b", split="search", graph=graph.to_json(), config=document, prompts=workload.rest)
    )
    executor.submit(Job(key="c", split="search", graph='{"kind": "forged"}', config=document))
    executor.submit(Job(key="d", split="search"))
    executor.submit(Job(key="e", split="heldout", graph=graph.to_json(), config=document))
    outcomes = drain(executor)
    assert outcomes["c"].failure == "error"
    assert "GraphError" in str(outcomes["c"].reason)
    done = {key: m for key in "abde" if (m := outcomes[key].measurement) is not None}
    gate, rest, dense, heldout = done.values()
    assert set(combine(gate, rest).samples) == set(evaluate(graph, config, workload).samples)
    assert dense.bytes_per_step == dense.dense_bytes_per_step
    assert (gate.split, heldout.split) == ("gate", "heldout")
    assert heldout.workload == prepared.heldout.key
    assert len({outcome.worker_pid for outcome in outcomes.values()}) == 1
