"""The evaluator of a search: RULER through the transformers engine, in a worker process."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.executor.base import Evaluator, EvaluatorSpec, Job
from evaluators.measure.evaluate import evaluate
from evaluators.measure.measurement import ExcludedTask, Measurement, Split
from evaluators.measure.prepare import Prepared
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload


class RulerSettings(BaseModel):
    """Settings of the evaluator that workers run; both workloads are built if they are not in `cache`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: WorkloadSpec
    heldout: WorkloadSpec
    cache: Path
    excluded: tuple[ExcludedTask, ...] = ()
    threads: int = 1


class RulerEvaluator:
    """What a worker runs: graphs and configs as JSON in, measurements out. The search split is open from the
    start, the held-out one from the first job that asks for it."""

    def __init__(self, settings: RulerSettings) -> None:
        import torch

        torch.set_num_threads(settings.threads)
        self._settings = settings
        self._search = Workload.ensure(settings.search, settings.cache, settings.excluded)
        self._heldout: Workload | None = None
        for part in (self._search.model, self._search.tokenizer, self._search.store):
            assert part is not None

    def __call__(self, job: Job) -> Measurement:
        from vortex.config import VortexConfig
        from vortex.graph.model import FlowGraph

        graph = None if job.graph is None else FlowGraph.from_json(job.graph)
        config = VortexConfig.model_validate_json(job.config)
        workload = self._workload(job.split)
        prompts = job.prompts
        if prompts is None and job.split == "gate":
            prompts = workload.gate
        return evaluate(graph, config, workload, prompts, split=job.split)

    def _workload(self, split: Split) -> Workload:
        if split != "heldout":
            return self._search
        if self._heldout is None:
            self._heldout = Workload.ensure(
                self._settings.heldout, self._settings.cache, self._settings.excluded
            )
        return self._heldout


def ruler_evaluator(settings: str) -> Evaluator:
    """The factory that workers call."""
    return RulerEvaluator(RulerSettings.model_validate_json(settings))


def ruler_spec(prepared: Prepared) -> EvaluatorSpec:
    """What an executor needs to measure on these workloads."""
    settings = RulerSettings(
        search=prepared.search.spec,
        heldout=prepared.heldout,
        cache=prepared.cache.resolve(),
        excluded=prepared.excluded,
    )
    return EvaluatorSpec(
        factory="evaluators.executor.ruler:ruler_evaluator", settings=settings.model_dump_json()
    )
