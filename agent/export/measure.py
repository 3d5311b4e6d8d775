"""Measuring an exported candidate again, on the engine of the record or on another one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from agent.export.launch import PAGE
from agent.export.report import ExportError, ExportReport, Serving
from evaluators.measure.measurement import Measurement
from evaluators.measure.spec import WorkloadSpec
from vortex.config import VortexConfig
from vortex.graph.model import FlowGraph

EngineName = Literal["hf", "sglang"]


def recorded_engine(report: ExportReport) -> EngineName:
    """The engine that the record was measured on."""
    return "hf" if report.serving is None else "sglang"


def measure(
    graph: FlowGraph,
    config: VortexConfig,
    report: ExportReport,
    spec: WorkloadSpec,
    cache: Path,
    engine: EngineName,
    serving: Serving,
) -> Measurement:
    """The candidate on the recorded prompts, which are made again into `cache` unless they are there.

    serving: options of an SGLang engine, used where the record has no other. Raises ExportError.
    """
    try:
        if engine == "hf":
            return _on_transformers(graph, config, report, spec, cache)
        return _on_sglang(graph, config, report, spec, cache, serving)
    except (OSError, ValueError) as error:
        raise ExportError(f"the prompts cannot be measured again: {error}") from error


def _on_transformers(
    graph: FlowGraph, config: VortexConfig, report: ExportReport, spec: WorkloadSpec, cache: Path
) -> Measurement:
    from evaluators.measure.evaluate import evaluate
    from evaluators.measure.workload import Workload

    workload = Workload.ensure(spec, cache, report.prompts.excluded)
    return evaluate(graph, config, workload, split=spec.split)


def _on_sglang(
    graph: FlowGraph,
    config: VortexConfig,
    report: ExportReport,
    spec: WorkloadSpec,
    cache: Path,
    serving: Serving,
) -> Measurement:
    if find_spec("sglang") is None:
        raise ExportError("--engine sglang needs SGLang (pip install '.[sglang]'); --engine hf does not")
    from evaluators.serving.engine import ServingOptions
    from evaluators.serving.prepare import with_room
    from evaluators.serving.ruler import ServedRulerEvaluator, ServedRulerSettings

    recorded = (report.serving or Serving()).model_dump(exclude_none=True)
    options = ServingOptions.for_machine(
        page_size=max(PAGE, config.block_size or 0), **{**recorded, **serving.model_dump(exclude_none=True)}
    )
    settings = ServedRulerSettings(
        search=spec,
        heldout=spec,
        cache=cache.resolve(),
        options=with_room(options, (spec,)),
        excluded=report.prompts.excluded,
    )
    evaluator = ServedRulerEvaluator(settings)
    try:
        return evaluator.measure(graph, config, spec.split)
    finally:
        evaluator.close()
