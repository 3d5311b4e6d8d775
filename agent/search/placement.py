"""Where evaluations run: which executor, how many workers, and what each may use."""

from __future__ import annotations

import os
from pathlib import Path

from agent.search.errors import SearchError
from agent.search.settings import SearchSettings
from evaluators.executor import (
    EvaluatorSpec,
    Executor,
    ExecutorError,
    Job,
    Limits,
    LocalExecutor,
    RayExecutor,
)
from evaluators.measure import Measurement
from evaluators.measure.gpus import gpus

ENGINE_START = 600.0
"""Seconds for a serving engine, the first one of a machine compiling its kernels."""


def build_executor(settings: SearchSettings, evaluator: EvaluatorSpec, journal: Path | None) -> Executor:
    """The executor asked for; `journal` is what its workers write of their starts and finishes.

    Raises:
        SearchError: there are too few GPUs.
    """
    kind = RayExecutor if settings.executor == "ray" else LocalExecutor
    workers = settings.workers or default_workers(settings, evaluator)
    limits = Limits(timeout=settings.timeout)
    if settings.engine == "sglang":
        limits = limits.model_copy(update={"start_timeout": ENGINE_START})
    try:
        return kind(evaluator, workers=workers, limits=limits, journal=journal)
    except ExecutorError as error:
        raise SearchError(f"--workers {workers}: {error}") from error


def default_workers(settings: SearchSettings, evaluator: EvaluatorSpec) -> int:
    """One per core; for a serving engine, which uses several cores, one per share of the GPUs, at least
    one."""
    if settings.engine == "sglang":
        return max(1, len(gpus().names) // evaluator.gpus) if evaluator.gpus else 1
    return len(os.sched_getaffinity(0))


def measure_dense(settings: SearchSettings, evaluator: EvaluatorSpec) -> Measurement:
    """Dense attention on all search prompts, by a worker that is gone when this returns.

    Raises:
        SearchError: it cannot be measured.
    """
    with build_executor(settings.model_copy(update={"workers": 1}), evaluator, None) as executor:
        executor.submit(Job(key="dense", split="search"))
        try:
            (outcome,) = executor.wait()
        except ExecutorError as error:
            raise SearchError(str(error)) from error
    if outcome.measurement is None:
        raise SearchError(f"dense attention could not be measured: {outcome.reason}")
    return outcome.measurement
