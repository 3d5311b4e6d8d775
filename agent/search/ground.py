"""Prompts and the evaluator that measures on them, for each engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.search.errors import SearchError
from agent.search.placement import measure_dense
from agent.search.settings import SearchSettings
from evaluators.executor import EvaluatorSpec
from evaluators.measure.prompts import PromptSet
from evaluators.measure.workload import Workload
from search_spaces.candidate import Candidate
from search_spaces.knobs import KnobSpace

if TYPE_CHECKING:
    from evaluators.serving.engine import ServingOptions


@dataclass(frozen=True)
class Ground:
    """`label`: engine and device, for people. `environment`: what of them decides whether a measurement may
    be used again."""

    search: PromptSet[Any]
    heldout_key: str
    evaluator: EvaluatorSpec
    open_heldout: Callable[[], object]
    label: str
    environment: Mapping[str, object] = field(default_factory=dict)
    time: Callable[[Candidate], str] | None = None


def transformers_ground(settings: SearchSettings, path: Path, space: KnobSpace, cache: Path) -> Ground:
    """Prompts that are prefilled once, and decoded by the transformers engine on the CPU."""
    from evaluators.executor.ruler import ruler_spec
    from evaluators.measure.prepare import prepare

    prepared = prepare(path, **_prompts(settings), **_data(settings), cache=cache)
    return Ground(
        search=prepared.search,
        heldout_key=prepared.heldout.key,
        evaluator=ruler_spec(prepared),
        open_heldout=prepared.open_heldout,
        label="CPU, transformers engine, float32 weights",
        time=lambda candidate: _timed(candidate, prepared.search),
    )


def serving_ground(settings: SearchSettings, path: Path, space: KnobSpace, cache: Path) -> Ground:
    """The same prompts, answered by SGLang engines. Every block size of the space divides a page. Nothing is
    timed without a GPU."""
    if find_spec("sglang") is None:
        raise SearchError("--engine sglang needs SGLang: pip install '.[sglang]'")
    from evaluators.serving.engine import ServingOptions
    from evaluators.serving.prepare import prepare_served

    options = ServingOptions.for_machine(
        attention_backend=settings.attention_backend,
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_dtype,
        tp_size=settings.tp,
        mem_fraction_static=settings.mem_fraction,
        page_size=max(space.block_size),
    )
    prepared = prepare_served(
        path,
        options,
        partial(measure_dense, settings),
        **_prompts(settings),
        data=_data(settings),
        cache=cache,
    )
    return Ground(
        search=prepared.search,
        heldout_key=prepared.heldout_key,
        evaluator=prepared.evaluator,
        open_heldout=prepared.open_heldout,
        label=options.identity,
        environment={"engine": options.identity},
        time=(lambda candidate: _timed_serving(candidate, path, options, settings.length))
        if options.gpus
        else None,
    )


def _timed_serving(candidate: Candidate, path: Path, options: ServingOptions, length: int) -> str:
    from evaluators.serving.timing import TimingOptions, time_candidate

    timing = TimingOptions(lengths=(length,))
    return time_candidate(candidate.graph.canonical(), candidate.config(), path, options, timing)


def _prompts(settings: SearchSettings) -> dict[str, Any]:
    return {
        "length": settings.length,
        "samples": settings.prompts_per_task,
        "heldout_samples": settings.heldout_per_task,
        "gate": settings.gate_per_task,
        "tasks": settings.tasks or None,
        "seed": settings.seed,
    }


def _data(settings: SearchSettings) -> dict[str, Any]:
    return {"essay": settings.essays, "squad": settings.squad, "hotpotqa": settings.hotpot}


def _timed(candidate: Candidate, workload: Workload) -> str:
    from evaluators.measure.speed import measure_speed

    config = candidate.config()
    return measure_speed(candidate.graph.canonical(), config, workload, repeats=30).model_dump_json()
