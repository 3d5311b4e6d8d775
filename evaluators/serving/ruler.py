"""The evaluator of a search on a serving engine: RULER through SGLang, in a worker process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluators.executor.base import Evaluator, EvaluatorSpec, Job
from evaluators.measure.answers import Answer, scored
from evaluators.measure.evaluate import measured, model_shape
from evaluators.measure.measurement import ExcludedTask, Measurement, Split
from evaluators.measure.prompts import DenseAnswer, StoredPrompt, load_tokenizer
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.stopping import AnswerWatch, needed
from evaluators.serving.engine import ServingEngine, ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.prompts import AnswersFile, ServedPrompts, ServedWorkload
from vortex.config import VortexConfig

if TYPE_CHECKING:
    from vortex.engine.sgl.counters import EngineCounters
    from vortex.graph.model import FlowGraph

FIRST_FLOW = {"gqa": "block_sparse_attention", "mla": "rope_aware_block_sparse_mla"}
"""What an engine is started with; candidates are deployed later."""
MOST_REQUESTS = 256
GRAPHS = {
    "cuda_graph_bs_decode": [1 << n for n in range(MOST_REQUESTS.bit_length())],
    "disable_prefill_cuda_graph": True,
    "max_running_requests": MOST_REQUESTS,
}
"""Decode steps are captured again for every candidate, and so for few batch sizes; what a candidate keeps of
the blocks of every request is allocated for all that may run. A prompt is prefilled once."""
LEAST_ROWS = 0.9
"""Of the rows that the plan makes sparse; SGLang decodes fewer where it retracts a request and prefills it
again."""


def for_search(options: ServingOptions) -> ServingOptions:
    """The options of an engine whose flow is swapped often."""
    graphs = GRAPHS if options.device == "cuda" else {}
    return options.model_copy(update={"extra": {**graphs, **options.extra}})


class ServedRulerSettings(BaseModel):
    """Settings of the evaluator that workers run: the splits, where their files are, and the engine.
    `identity`: what the engine must be (`ServingOptions.identity`); None is any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: WorkloadSpec
    heldout: WorkloadSpec
    cache: Path
    options: ServingOptions
    identity: str | None = None
    excluded: tuple[ExcludedTask, ...] = ()


class ServedRulerEvaluator:
    """Graphs and configs as JSON in, measurements out, all on one engine."""

    def __init__(self, settings: ServedRulerSettings) -> None:
        self._settings = settings
        here = settings.options.identity
        self._identity = settings.identity or here
        if here != self._identity:
            raise ServingError(
                f"an engine of this worker is {here}, the search measures on {settings.identity}"
            )
        model = settings.search.model
        config = VortexConfig(module_name=FIRST_FLOW[model_shape(model).kind])
        self.engine = ServingEngine(model, config, for_search(settings.options))
        self._tokenizer = load_tokenizer(model)
        self._opened: dict[str, ServedWorkload] = {}
        self._workload("search")

    def __call__(self, job: Job) -> Measurement:
        from vortex.graph.model import FlowGraph

        graph = None if job.graph is None else FlowGraph.from_json(job.graph)
        config = VortexConfig.model_validate_json(job.config)
        return self.measure(graph, config, job.split, job.prompts)

    def measure(
        self,
        graph: FlowGraph | None,
        config: VortexConfig,
        split: Split,
        prompts: Sequence[int] | None = None,
    ) -> Measurement:
        """A candidate (None: dense attention) on the prompts of a split, or on those at these positions. It
        is sparse wherever its policy says so, faster or not: the algorithm is measured.

        Raises ConfigError for what does not fit the model, ServingError where the engine was not sparse."""
        workload = self._workload(split)
        if prompts is None:
            prompts = workload.gate if split == "gate" else workload.positions
        begin = time.perf_counter()
        if graph is None:
            answers = [workload.prompts[position].dense.answer for position in prompts]
            begin -= workload.dense_seconds * len(prompts) / len(workload)
        else:
            self.engine.deploy(graph, config.model_copy(update={"dense_crossover": False}))
            answers, new = self._answers(workload, prompts)
            self._check(graph, config, [workload.prompts[position] for position in prompts], new)
        engine, device = self.engine.label, self.engine.device
        return measured(graph, config, workload, prompts, answers, split, engine, device, begin)

    def close(self) -> None:
        self.engine.close()

    def _workload(self, split: Split) -> ServedWorkload:
        spec = self._settings.heldout if split == "heldout" else self._settings.search
        if spec.split not in self._opened:
            identity, cache = self._identity, self._settings.cache
            prompts = ServedPrompts.ensure(spec, identity, cache, self._settings.excluded)
            self._opened[spec.split] = ServedWorkload.ensure(prompts, cache, self._answer_densely)
        return self._opened[spec.split]

    def _answer_densely(self, prompts: ServedPrompts) -> AnswersFile:
        self.engine.deploy(None, VortexConfig())
        begin = time.perf_counter()
        answers, _ = self._answers(prompts, range(len(prompts)))
        return AnswersFile(
            engine=self._identity,
            seconds=time.perf_counter() - begin,
            answers=tuple(map(DenseAnswer.of, answers)),
        )

    def _answers(
        self, prompts: ServedPrompts | ServedWorkload, positions: Sequence[int]
    ) -> tuple[list[Answer], list[int]]:
        """The answers, as far as their scores needed them, and how many tokens the engine generated."""
        asked = [prompts.prompts[position] for position in positions]
        limits = [prompt.max_new_tokens for prompt in asked]
        new = self.engine.generate([prompts.ids[position] for position in positions], limits)
        watch = AnswerWatch(self._tokenizer, [p.answers for p in asked], [p.metric for p in asked], limits)
        return scored(self._tokenizer, asked, needed(watch, new)), [len(tokens) for tokens in new]

    def _check(
        self, graph: FlowGraph, config: VortexConfig, prompts: Sequence[StoredPrompt], new: Sequence[int]
    ) -> None:
        shape, options = model_shape(self._settings.search.model), self._settings.options
        heads = 1 if shape.kind == "mla" else max(1, shape.kv_heads // options.tp_size)
        layers = shape.layers - len(config.layers_skip or ())
        # The first new token is the prefill's.
        steps = [prompt.tokens + np.arange(1, count) for prompt, count in zip(prompts, new, strict=True)]
        if config.block_size is None:
            config = config.model_copy(update={"block_size": options.page_size})
        check_sparse(self.engine.counters(), graph, config, layers, heads, steps)


def check_sparse(
    counters: EngineCounters,
    graph: FlowGraph,
    config: VortexConfig,
    layers: int,
    heads: int,
    steps: Sequence[np.ndarray],
) -> None:
    """Whether the engine decoded through this graph as planned. `layers`: sparse ones; `heads`: kv heads of a
    rank; `steps`: of each request, the lengths at which it decoded.

    Raises ServingError: what was measured is not the candidate."""
    from vortex.budget import parse_policy
    from vortex.runtime.plan import make_plan

    policy = None if config.schedule_policy is None else parse_policy(config.schedule_policy)
    plan = make_plan(np.concatenate([*steps, np.zeros(0, np.int64)]), config.block_size or 16, config, policy)
    planned = int(plan.sparse.sum()) * heads if layers else 0
    deployed = (counters.graph, counters.sparse_layers)
    if deployed != (graph.hash, layers):
        raise ServingError(
            f"the engine ran graph {counters.graph[:12] or 'none'} in {counters.sparse_layers} layers, not "
            f"{graph.hash[:12]} in {layers}: nothing is measured"
        )
    if counters.rows_sparse < LEAST_ROWS * planned:
        raise ServingError(
            f"the engine decoded {counters.rows_sparse} rows sparsely of {planned} planned, in "
            f"{counters.decode_steps} steps: what it measured is partly dense attention"
        )


def ruler_evaluator(settings: str) -> Evaluator:
    """The factory that workers call."""
    return ServedRulerEvaluator(ServedRulerSettings.model_validate_json(settings))


def ruler_spec(settings: ServedRulerSettings) -> EvaluatorSpec:
    """What an executor needs to measure on these workloads."""
    return EvaluatorSpec(
        factory="evaluators.serving.ruler:ruler_evaluator",
        settings=settings.model_dump_json(),
        gpus=settings.options.gpus,
    )
