"""Measuring a candidate: both objectives from the same prompts, lengths, plans and layers.

Accuracy is RULER's score of what the candidate generates. Bytes are counted from the candidate's own plan, at
the steps that dense attention takes to answer the prompt, or at more where those are dearer: were they
counted at the steps that the candidate takes, an algorithm that gives up early would look cheaper for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.measure.answers import Answer, scored
from evaluators.measure.measurement import Measurement, Split, measurement_of
from evaluators.measure.prompts import PromptSet, StoredPrompt
from evaluators.measure.samples import PREDICTION_CHARS, SampleResult
from evaluators.measure.stopping import AnswerWatch
from evaluators.measure.workload import Workload

if TYPE_CHECKING:
    from vortex.config import VortexConfig
    from vortex.engine.sgl.model_shape import ModelShape
    from vortex.graph.model import FlowGraph
    from vortex.runtime.hooks import Hooks

ENGINE = "hf-cpu"
Floats = NDArray[np.float64]


def evaluate(
    graph: FlowGraph | None,
    config: VortexConfig,
    workload: Workload,
    prompts: Sequence[int] | None = None,
    *,
    split: Split | None = None,
    stop_early: bool = True,
) -> Measurement:
    """Measures a graph (None: dense attention) on a workload, or on the prompts at these positions of it.

    With `stop_early` a row ends when its score is settled, which changes no score. Raises ConfigError where
    the settings do not fit the model, ValueError for a split that the workload is not of.
    """
    split = _checked_split(split, workload.spec.split)
    positions = list(workload.positions if prompts is None else prompts)
    begin = time.perf_counter()
    if graph is None:  # the answers were decoded when the workload was built
        answers = [workload.prompts[position].dense.answer for position in positions]
        begin -= workload.meta.dense_seconds * len(positions) / len(workload)
    else:
        answers = decode_answers(graph, config, workload, positions, stop_early=stop_early)
    return measured(
        graph, config, workload, positions, answers, split, ENGINE, str(workload.model.device), begin
    )


def measured(
    graph: FlowGraph | None,
    config: VortexConfig,
    workload: PromptSet[StoredPrompt],
    positions: Sequence[int],
    answers: Sequence[Answer],
    split: Split | None,
    engine: str,
    device: str,
    begin: float,
) -> Measurement:
    """The measurement that an engine's answers to the prompts at `positions` make. `begin`: when it began,
    by `time.perf_counter()`. Raises as `evaluate` does."""
    from evaluators.probe.load import model_label

    split = _checked_split(split, workload.spec.split)
    chosen = [workload.prompts[position] for position in positions]
    traffic, dense = price(graph, config, workload, chosen)
    samples = [
        SampleResult(
            task=prompt.task,
            prompt=prompt.index,
            score=answer.score,
            bytes=float(row_bytes),
            dense_bytes=float(row_dense),
            new_tokens=answer.tokens,
            prediction=answer.text[:PREDICTION_CHARS],
        )
        for prompt, answer, row_bytes, row_dense in zip(chosen, answers, traffic, dense, strict=True)
    ]
    return measurement_of(
        samples,
        split=split,
        workload=workload.key,
        model=model_label(workload.spec.model),
        engine=engine,
        device=device,
        length=workload.spec.length,
        seconds=time.perf_counter() - begin,
        tasks_excluded=workload.excluded,
    )


def _checked_split(split: Split | None, given: Split) -> Split:
    if split is not None and (split == "heldout") != (given == "heldout"):
        raise ValueError(f"these prompts are of the {given!r} split, not of {split!r}")
    return split or given


def decode_answers(
    graph: FlowGraph | None,
    config: VortexConfig,
    workload: Workload,
    positions: Sequence[int],
    *,
    stop_early: bool = True,
    hooks: Hooks | None = None,
) -> list[Answer]:
    """What a candidate says to the prompts at `positions`; `hooks` may replace a graph's scores."""
    from vortex.engine.hf.decode import decode

    chosen = [workload.prompts[position] for position in positions]
    limits = [prompt.max_new_tokens for prompt in chosen]
    watch = AnswerWatch(workload.tokenizer, [p.answers for p in chosen], [p.metric for p in chosen], limits)
    stop = watch if stop_early else None
    result = decode(workload.model, workload.store, positions, graph, config, limits, stop, hooks=hooks)
    return scored(workload.tokenizer, chosen, result.tokens)


def price(
    graph: FlowGraph | None,
    config: VortexConfig,
    workload: PromptSet[StoredPrompt],
    chosen: Sequence[StoredPrompt],
) -> tuple[Floats, Floats]:
    """Bytes of a decode step of the whole model, and dense attention's: the mean over each prompt's steps.

    The share of dense attention's bytes is that of the dearest stretch from the first step to the last
    reference step or any later one: a policy that turns dense where answers are due to be complete pays
    for what it reads there. It depends on the plan alone, not on when a row stops.
    """
    from vortex.runtime.traffic import Traffic

    shape = model_shape(workload.spec.model)
    heads = 1 if shape.kind == "mla" else shape.kv_heads
    traffic = Traffic(graph, shape.geometry(config.block_size or 16), config, shape.layers, heads)
    lengths = [step_lengths(prompt) for prompt in chosen]
    every, where = np.unique(np.concatenate(lengths), return_inverse=True)
    ends = np.cumsum([len(length) for length in lengths])[:-1]
    moved, dense = (np.split(steps[where], ends) for steps in (traffic.steps(every), traffic.dense(every)))
    priced, yardstick = np.empty(len(chosen)), np.empty(len(chosen))
    for row, (prompt, ours, theirs) in enumerate(zip(chosen, moved, dense, strict=True)):
        least = len(reference_lengths(prompt))
        shares = ours.cumsum() / theirs.cumsum()
        yardstick[row] = theirs[:least].mean()
        priced[row] = yardstick[row] * shares[least - 1 :].max()
    return priced, yardstick


def model_shape(folder: Path) -> ModelShape:
    """The attention of the model in `folder`."""
    from vortex.engine.sgl.model_shape import read_shape

    shape = read_shape(folder)
    if shape is None:
        raise FileNotFoundError(f"{folder} holds no config.json: give the folder of a transformers model")
    return shape


def step_lengths(prompt: StoredPrompt) -> NDArray[np.int64]:
    """Sequence lengths of all decode steps that the task allows."""
    steps = max(2, prompt.max_new_tokens, prompt.dense.tokens)
    return prompt.tokens + np.arange(1, steps, dtype=np.int64)


def reference_lengths(prompt: StoredPrompt) -> NDArray[np.int64]:
    """Sequence lengths of the decode steps in which dense attention answers: the first token is the
    prefill's."""
    return prompt.tokens + np.arange(1, max(2, prompt.dense.tokens), dtype=np.int64)
