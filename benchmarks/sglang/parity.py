"""RULER through SGLang and through the `hf` engine: the same prompts, the same flows, paired scores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluators.measure.answers import scored
from evaluators.measure.measurement import Measurement
from evaluators.measure.prompts import generate_prompts, load_tokenizer
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.stats import Interval, difference_interval, score_interval
from evaluators.serving.engine import ServingEngine, ServingOptions
from evaluators.serving.ruler import for_search
from vortex.config import VortexConfig
from vortex.engine.sgl.counters import EngineCounters
from vortex.graph.model import FlowGraph

DENSE = "dense"


class Parity(BaseModel):
    """One flow, or dense attention, in both engines: the score of each prompt. counters: what SGLang's
    scheduler counted."""

    model_config = ConfigDict(frozen=True)

    flow: str
    tasks: tuple[str, ...]
    sglang: tuple[float, ...]
    hf: tuple[float, ...]
    counters: EngineCounters | None

    @property
    def difference(self) -> Interval:
        """SGLang's accuracy minus hf's, paired by prompt."""
        return difference_interval(self.tasks, np.subtract(self.sglang, self.hf))

    @property
    def equal(self) -> bool:
        return self.difference.low <= 0.0 <= self.difference.high

    @property
    def row(self) -> tuple[str, ...]:
        found, c = self.difference, self.counters
        ours, theirs = (score_interval(self.tasks, np.array(scores)) for scores in (self.sglang, self.hf))
        return (
            self.flow,
            str(len(self.tasks)),
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
    spec: WorkloadSpec,
    flows: Mapping[str, VortexConfig],
    options: ServingOptions,
    cache: Path,
    *,
    dense: bool = True,
) -> list[Parity]:
    """Dense attention first (unless SGLang has none for the model), then the flows. `hf` runs in processes of
    its own on the CPU, in float32, while SGLang runs on the GPU."""
    sparse = {name: config.model_copy(update={"dense_crossover": False}) for name, config in flows.items()}
    every = {DENSE: VortexConfig(), **sparse} if dense else sparse
    graphs = {name: config.load_graph().to_json() for name, config in flows.items()}
    threads = max(1, (os.cpu_count() or 1) // len(every))
    prompts, tokenizer = generate_prompts(spec), load_tokenizer(spec.model)
    ids, limits = [prompt.ids for prompt in prompts], [prompt.max_new_tokens for prompt in prompts]
    ours, counters = {}, {}
    with (
        ProcessPoolExecutor(len(every), mp_context=multiprocessing.get_context("spawn")) as pool,
        ServingEngine(spec.model, next(iter(sparse.values())), for_search(options)) as engine,
    ):
        theirs = {
            name: pool.submit(_by_hf, spec, graphs.get(name), config, cache, threads)
            for name, config in every.items()
        }
        for name, config in every.items():
            engine.deploy(FlowGraph.from_json(graphs[name]) if name in graphs else None, config)
            ours[name] = scored(tokenizer, prompts, engine.generate(ids, limits))
            counters[name] = engine.counters() if name in graphs else None
        # An engine that is closed ends every child of this process: hf first.
        hf = {name: Measurement.model_validate_json(found.result()) for name, found in theirs.items()}
    return [
        Parity(
            flow=name,
            tasks=tuple(prompt.task for prompt in prompts),
            sglang=tuple(answer.score for answer in ours[name]),
            hf=_in_order(hf[name], [(prompt.task, prompt.index) for prompt in prompts]),
            counters=counters[name],
        )
        for name in every
    ]


def _in_order(found: Measurement, prompts: list[tuple[str, int]]) -> tuple[float, ...]:
    scores = {(sample.task, sample.prompt): sample.score for sample in found.samples}
    return tuple(scores[prompt] for prompt in prompts)


def _by_hf(spec: WorkloadSpec, graph: str | None, config: VortexConfig, cache: Path, threads: int) -> str:
    import torch

    from evaluators.measure.evaluate import evaluate
    from evaluators.measure.workload import Workload

    torch.set_num_threads(threads)
    found = None if graph is None else FlowGraph.from_json(graph)
    return evaluate(found, config, Workload.ensure(spec, cache)).model_dump_json()
