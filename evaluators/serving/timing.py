"""Flows against dense attention with the same requests, one engine after the other.

Dense is SGLang as it comes, with its own defaults (CUDA graphs, overlap schedule, prefix cache on), in a
process of its own; so is the sparse one, where its options do not say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from evaluators.measure.environment import Environment, current_environment, library_versions
from evaluators.serving.engine import ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.job import Answer, EngineJob, Flow, run_job
from evaluators.serving.latency import LoadPlan
from evaluators.serving.report import Failure, ModelFacts, ServingReport
from evaluators.serving.throughput import DecodePlan

if TYPE_CHECKING:
    from vortex.config import VortexConfig
    from vortex.engine.sgl.model_shape import ModelShape
    from vortex.graph.model import FlowGraph

SPARSE_ONLY = ("disable_cuda_graph", "disable_overlap_schedule", "disable_radix_cache")
LIBRARIES = ("sglang", "torch", "transformers", "flashinfer-python", "sglang-kernel", "triton", "numpy")
DUMMY = "dummy"


class TimingOptions(BaseModel):
    """What contenders of a search are timed on. dense: attention backends of dense engines; the fastest is
    compared with. timeout: seconds for one engine, its start included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lengths: tuple[int, ...] = Field(default=(2048,), min_length=1)
    batch: int = Field(default=16, ge=1)
    new: int = Field(default=128, ge=4)
    repeats: int = Field(default=5, ge=1)
    dense: tuple[str, ...] = ()
    seed: int = 0
    timeout: float = Field(default=600.0, gt=0)


def time_candidate(
    graph: FlowGraph,
    config: VortexConfig,
    model: Path,
    options: ServingOptions,
    timing: TimingOptions | None = None,
) -> str:
    """A candidate against dense attention: a `ServingReport` as JSON. Call it when no other engine is on the
    GPU. The dense engine is measured once a process for the same model and options. Raises ServingError."""
    timing = timing or TimingOptions()
    plan = DecodePlan(
        lengths=timing.lengths, batch=timing.batch, new=timing.new, repeats=timing.repeats, seed=timing.seed
    )
    flow = Flow(name=config.module_name or "candidate", graph=graph.to_json(), config=config)
    report = compare(model, options, (flow,), decode=plan, dense=timing.dense or None, timeout=timing.timeout)
    if not report.comparisons:
        raise ServingError(_reasons(report.failed))
    return report.model_dump_json()


def compare(
    model: Path,
    options: ServingOptions,
    flows: Sequence[Flow],
    *,
    decode: DecodePlan | None = None,
    load: LoadPlan | None = None,
    dense: Sequence[str] | None = None,
    timeout: float | None = None,
    label: str | None = None,
) -> ServingReport:
    """Dense engines on these attention backends (None: the sparse one's), then all flows in one engine.

    What fails costs itself only, and the report says why. Raises ServingError where nothing was measured.
    """
    facts = model_facts(model, dummy=options.load_format == DUMMY, label=label)
    answers: list[Answer] = []
    for backend in (options.attention_backend,) if dense is None else dense:
        job = EngineJob(model=model, options=dense_options(options, backend), decode=decode, load=load)
        answers.append(_dense(job, timeout))
    if flows:
        job = EngineJob(model=model, options=options, flows=tuple(flows), decode=decode, load=load)
        answers.append(run_job(job, timeout))
    runs = tuple(run for answer in answers for run in answer.runs)
    failed = tuple(failure for answer in answers for failure in answer.failed)
    if not runs:
        nothing = "nothing to measure: give a flow, or a backend for dense attention"
        raise ServingError(_reasons(failed) or nothing)
    plan = decode or load
    return ServingReport(
        date=datetime.now(UTC),
        model=facts,
        seed=plan.seed if plan else 0,
        runs=runs,
        failed=failed,
        environment=environment(),
    )


_DENSE: dict[str, Answer] = {}


def _dense(job: EngineJob, timeout: float | None) -> Answer:
    """Dense attention is the same for every flow: measured once a process, unless it failed."""
    key = job.model_dump_json()
    answer = _DENSE.get(key) or run_job(job, timeout)
    if not answer.failed:
        _DENSE[key] = answer
    return answer


def _reasons(failed: Sequence[Failure]) -> str:
    return "; ".join(f"{failure.flow}: {failure.reason}" for failure in failed)


def dense_options(options: ServingOptions, backend: str) -> ServingOptions:
    """The options of the dense engine: those of the sparse one, without what only that one needs."""
    extra = options.extra
    if options.device != "cpu":  # a CPU has no graphs to begin with
        extra = {name: value for name, value in extra.items() if name not in SPARSE_ONLY}
    return options.model_copy(update={"attention_backend": backend, "extra": extra})


def model_shape(model: Path) -> ModelShape:
    """Raises ServingError where `model` is no folder of a decoder."""
    from vortex.engine.sgl.model_shape import read_shape
    from vortex.errors import ConfigError

    try:
        shape = read_shape(model)
    except ConfigError as error:
        raise ServingError(str(error)) from None
    if shape is None:
        raise ServingError(f"{model}: no config.json there; give the folder of a transformers model")
    return shape


def model_facts(model: Path, *, dummy: bool, label: str | None = None) -> ModelFacts:
    from evaluators.probe import model_label

    shape = model_shape(model)
    return ModelFacts(
        name=label or model_label(model),
        weights="dummy" if dummy else "checkpoint",
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=1 if shape.kv_lora_rank else shape.kv_heads,
        head_dim=shape.kv_lora_rank + shape.qk_rope_head_dim if shape.kv_lora_rank else shape.head_dim,
        kv_lora_rank=shape.kv_lora_rank,
    )


def environment() -> Environment:
    """This machine's, with the versions of what engines are made of."""
    return current_environment().model_copy(update={"libraries": library_versions(LIBRARIES)})


def open_flow(source: str, config: VortexConfig, model: Path, options: ServingOptions) -> Flow:
    """A registered flow, a flow file or a `graph.json`, traced at the model's sizes. Raises VortexError."""
    from vortex.flow import load_graph

    geometry = model_shape(model).geometry(config.block_size or options.page_size, options.tp_size)
    graph = load_graph(source, geometry=geometry)
    return Flow(
        name=Path(source).name if Path(source).suffix else source, graph=graph.to_json(), config=config
    )
