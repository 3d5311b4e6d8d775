"""RULER through SGLang and through the `hf` engine: the same prompts, the same flows, paired scores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.measure.measurement import Measurement
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.stats import Interval, interval, paired_difference
from evaluators.serving.engine import ServingOptions
from evaluators.serving.ruler import ServedRulerEvaluator, ServedRulerSettings
from vortex.config import VortexConfig
from vortex.engine.sgl.counters import EngineCounters
from vortex.graph.model import FlowGraph

DENSE = "dense"


class Parity(BaseModel):
    """One flow, or dense attention, in both engines. counters: what SGLang's scheduler counted."""

    model_config = ConfigDict(frozen=True)

    flow: str
    sglang: Measurement
    hf: Measurement
    counters: EngineCounters | None

    @property
    def difference(self) -> Interval:
        """SGLang's accuracy minus hf's, paired by prompt."""
        same = self.hf.model_copy(update={"workload": self.sglang.workload})  # one spec, two engines
        return paired_difference(self.sglang, same)

    @property
    def equal(self) -> bool:
        return self.difference.low <= 0.0 <= self.difference.high

    @property
    def row(self) -> tuple[str, ...]:
        found, c = self.difference, self.counters
        ours, theirs = interval(self.sglang), interval(self.hf)
        return (
            self.flow,
            str(len(self.sglang.samples)),
            f"{ours.mean:.2%} [{ours.low:.1%}, {ours.high:.1%}]",
            f"{theirs.mean:.2%} [{theirs.low:.1%}, {theirs.high:.1%}]",
            f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]",
            "yes" if self.equal else "NO",
            f"{c.sparse_steps} of {c.decode_steps}" if c else "-",
            f"{c.blocks_read / c.blocks_total:.1%}" if c else "-",
        )


COLUMNS = (
    "flow",
    "prompts",
    "SGLang",
    "hf",
    "difference, points",
    "equal",
    "sparse steps",
    "blocks read",
)


def compare(
    spec: WorkloadSpec, flows: Mapping[str, VortexConfig], options: ServingOptions, cache: Path
) -> list[Parity]:
    """Dense attention first, then the flows. `hf` runs in processes of its own on the CPU, in float32, while
    SGLang runs on the GPU."""
    graphs = {name: config.load_graph().to_json() for name, config in flows.items()}
    threads = max(1, (os.cpu_count() or 1) // (len(flows) + 1))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(flows) + 1, mp_context=context) as pool:
        theirs = {
            name: pool.submit(_by_hf, spec, graphs.get(name), config, cache / "hf", threads)
            for name, config in {DENSE: VortexConfig(), **flows}.items()
        }
        settings = ServedRulerSettings(search=spec, heldout=spec, cache=cache / "sglang", options=options)
        evaluator = ServedRulerEvaluator(settings)
        try:
            dense = evaluator.measure(None, VortexConfig(), spec.split)
            ours: dict[str, tuple[Measurement, EngineCounters | None]] = {DENSE: (dense, None)}
            for name, config in flows.items():
                graph = FlowGraph.from_json(graphs[name])
                measured = evaluator.measure(graph, config, spec.split)
                ours[name] = (measured, evaluator.engine.counters())
            hf = {name: Measurement.model_validate_json(found.result()) for name, found in theirs.items()}
        finally:
            evaluator.close()  # ends every child of this process
    return [
        Parity(flow=name, sglang=measured, hf=hf[name], counters=counters)
        for name, (measured, counters) in ours.items()
    ]


def _by_hf(spec: WorkloadSpec, graph: str | None, config: VortexConfig, cache: Path, threads: int) -> str:
    import torch

    from evaluators.measure.evaluate import evaluate
    from evaluators.measure.workload import Workload

    torch.set_num_threads(threads)
    found = None if graph is None else FlowGraph.from_json(graph)
    return evaluate(found, config, Workload.ensure(spec, cache)).model_dump_json()
