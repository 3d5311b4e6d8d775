"""Accuracy by budget of known selections: the probe must tell them apart, or it cannot judge a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluators.measure.evaluate import decode_answers
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.stats import score_interval
from evaluators.measure.workload import Workload
from evaluators.probe.card import BudgetScore
from evaluators.probe.model import Shape

SELECTIONS = ("random", "mean centroid", "Quest", "oracle")
FLOWS: dict[Shape, dict[str, str]] = {
    "gqa": {"mean centroid": "block_sparse_attention", "Quest": "gqa_quest_sparse_attention"},
    "mla": {"mean centroid": "rope_aware_block_sparse_mla", "Quest": "quest_mla"},
}
BLOCK_SIZE = 16
BLOCKS = (2, 4, 8, 16, 32, 64)


def budget_scores(
    model: Path, shape: Shape, tasks: Sequence[str], length: int, samples: int, cache: Path
) -> Iterator[BudgetScore]:
    """Every selection at every budget on the same prompts.

    All layers are sparse; the first block and the last two are kept.
    """
    from vortex.config import VortexConfig
    from vortex.flow import load_graph
    from vortex.runtime.hooks import Hooks, oracle_scores, random_scores

    workload = Workload.ensure(
        WorkloadSpec(model=model, tasks=tuple(tasks), length=length, samples=samples), cache
    )
    names = [workload.meta.prompts[position].task for position in workload.positions]
    flows = FLOWS[shape]
    hooks = {"random": Hooks(scores=random_scores(0)), "oracle": Hooks(scores=oracle_scores)}
    for selection in SELECTIONS:
        graph = load_graph(flows[selection]) if selection in flows else None
        for blocks in BLOCKS:
            config = VortexConfig(
                module_name=flows.get(selection, selection),
                topk_val=blocks,
                block_size=BLOCK_SIZE,
                block_reserved_bos=1,
                block_reserved_eos=2,
            )
            answers = decode_answers(graph, config, workload, workload.positions, hooks=hooks.get(selection))
            found = score_interval(names, np.array([score for _, score, _ in answers]))
            yield BudgetScore(
                selection=selection, blocks=blocks, score=found.mean, low=found.low, high=found.high
            )
