"""The formulas of the flows that ship, in numpy and without any op of the language, and rows to compare on.

A formula takes `q [group, D]`, `k` and `v [S, block_size, D]` (for MLA both are the latent) and the scored
blocks of one row, and gives its score for every block, `[S]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.vortex.targets.cases import GROUP, HEAD_DIM, HEADS, Rows, planned, ragged_rows
from vortex.config import VortexConfig
from vortex.graph import FlowGraph
from vortex.runtime.pool import KVPool
from vortex.runtime.summaries import Summaries
from vortex.targets import LayerCache, get_target

Array = NDArray[Any]
LENGTHS = (690, 33, 300, 497, 513, 150)
"""Tokens of the requests: a few more of each fit into its pages."""
RANK, ROPE = HEAD_DIM - 6, 6
"""The latent of the MLA flows: `[kv_c | k_pe]`, as wide as the keys of the others."""
Formula = Callable[[Array, Array, Array, slice], Array]


def centroid(q: Array, k: Array, v: Array, span: slice) -> Array:
    return k.mean(1) @ q.mean(0)


def softmax_of_heads(q: Array, k: Array, v: Array, span: slice) -> Array:
    powers = np.exp(0.09 * k.mean(1) @ q.T)  # [S, group]
    return (powers / powers[span].sum(0)).max(1)


def quest(q: Array, k: Array, v: Array, span: slice) -> Array:
    bound = np.maximum(q * k.max(1)[:, None], q * k.min(1)[:, None])  # [S, group, features]
    return bound.sum(2).max(1)


def masked_quest(q: Array, k: Array, v: Array, span: slice) -> Array:
    return quest(q[:, 8:], k[:, :, 8:], v, span)


def best_sub_block(formula: Formula) -> Formula:
    """The maximum of `formula` over sub-blocks of 16 tokens; a smaller block is one."""

    def best(q: Array, k: Array, v: Array, span: slice) -> Array:
        size = min(16, k.shape[1])
        parts = [k[:, first : first + size] for first in range(0, k.shape[1], size)]
        return np.max([formula(q, part, v, span) for part in parts], axis=0)

    return best


def centred(q: Array, k: Array, v: Array, span: slice) -> Array:
    score = centroid(q, k, v, span)
    return score - score[span].mean()


def value_energy(q: Array, k: Array, v: Array, span: slice) -> Array:
    return centroid(q, k, v, span) * np.sqrt((v * v).sum(2)).mean(1)


def weighted(content: float, position: float) -> Formula:
    def score(q: Array, k: Array, v: Array, span: slice) -> Array:
        nope = centroid(q[:, :RANK], k[:, :, :RANK], v, span)
        return content * nope + position * centroid(q[:, RANK:], k[:, :, RANK:], v, span)

    return score


def summed(q: Array, k: Array, v: Array, span: slice) -> Array:
    return k.mean(1) @ q.sum(0)


class RunningAverage:
    """0.5 of what was saved in the step before, for the blocks that were scored then, plus the centroid's."""

    def __init__(self) -> None:
        self.saved: dict[bytes, Array] = {}

    def __call__(self, q: Array, k: Array, v: Array, span: slice) -> Array:
        row = k[0].tobytes()
        score = centroid(q, k, v, span)
        before = self.saved.get(row, np.zeros(0))
        score[: len(before)] += 0.5 * before
        self.saved[row] = np.where(np.arange(len(k)) < span.start, 0.0, score)[: span.stop]
        return score


FORMULAS: dict[str, Formula | type[RunningAverage]] = {
    "block_sparse_attention": centroid,
    "gqa_block_sparse_attention": softmax_of_heads,
    "gqa_quest_sparse_attention": quest,
    "lserve_sparse_attention": best_sub_block(quest),
    "lserve_centroid_sparse_attention": best_sub_block(centroid),
    "masked_quest_sparse_attention": masked_quest,
    "centered_block_sparse_attention": centred,
    "venergy_gated_centroid": value_energy,
    "rope_aware_block_sparse_mla": centroid,
    "lserve_centroid_mla": best_sub_block(centroid),
    "rope_unaware_block_sparse_mla": weighted(1.0, 0.0),
    "rope_unaware_lserve_centroid_mla": best_sub_block(weighted(1.0, 0.0)),
    "rope_weighted_block_sparse_mla_b10": weighted(0.9, 0.1),
    "rope_weighted_block_sparse_mla_b25": weighted(0.75, 0.25),
    "rope_weighted_block_sparse_mla_b50": weighted(0.5, 0.5),
    "rope_weighted_block_sparse_mla_b75": weighted(0.25, 0.75),
    "rope_weighted_block_sparse_mla_b90": weighted(0.1, 0.9),
    "rope_weighted_block_sparse_mla_b100": weighted(0.0, 1.0),
    "quest_mla": quest,
    "running_avg_block_sparse": RunningAverage,
    "learned_block_sparse_mla": summed,
}


class Decode:
    """Ragged rows on the `reference` target, scored step by step and compared with a formula."""

    def __init__(
        self, graph: FlowGraph, block_size: int, formula: Formula | type[RunningAverage], layer: int = 0
    ) -> None:
        self.formula = formula() if isinstance(formula, type) else formula
        self.rows = ragged_rows(block_size, scattered=True, lengths=LENGTHS)
        if graph.kind == "mla":
            latent = KVPool(self.rows.pool.k, kv_lora_rank=RANK)
            self.rows = dataclasses.replace(self.rows, pool=latent)
        self.config = VortexConfig(
            topk_val=3, block_size=block_size, topk_ratio=0.3, block_reserved_eos=2, dtype="float32"
        )
        geometry = self.rows.pool.geometry(block_size, GROUP)
        self.program = get_target("reference").program(graph, geometry, self.config.dtype)
        self.layer = LayerCache(layer, self.rows.pool)
        self.summaries = Summaries(self.program, [self.layer], self.rows.requests, HEADS)

    def run(self, steps: int = 1) -> None:
        """Every step has a new query and some tokens more, which finish blocks of some rows."""
        for step in range(steps):
            generator = torch.Generator().manual_seed(step)
            q = torch.randn(self.rows.q.shape, generator=generator)
            self.step(dataclasses.replace(self.rows, q=q, lengths=self.rows.lengths + 7 * step))

    def step(self, rows: Rows) -> None:
        """Compares every block that may be picked."""
        given, table, q = planned(rows, self.config)
        due = self.summaries.due(table, given.requests, rows.lengths // table.block_size)
        self.summaries.update(self.layer, due)
        scores = self.program.scores(q, self.layer, table, given)
        assert len(given) >= HEADS
        for row in range(len(given)):
            n = int(given.host_n[row])
            k, v = (data[table.ids[row, :n]].double().numpy() for data in rows.pool.blocks(table.block_size))
            span = slice(given.bos, n - given.eos)
            expected = self.formula(q[row].double().numpy(), k, v, span)
            found = scores[0, row, :n].double().numpy()
            np.testing.assert_allclose(found[span], expected[span], rtol=1e-4, atol=1e-5)
