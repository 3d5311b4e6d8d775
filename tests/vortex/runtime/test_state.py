"""Flows that keep state between steps, and unions of selections, through a whole decode session."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.vortex.targets.agreement import ON_CPU
from vortex.config import VortexConfig
from vortex.flow import trace_source
from vortex.graph import FlowGraph
from vortex.runtime.hooks import Hooks, ScoreInput
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession

HEADS, GROUP, DIM, BLOCK = 2, 4, 8, 16
HEAD = """
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import Add, GeMM, Load, Max, Mean, Multiply, Save, TopK, Union, topK
from vortex_torch.cache import Fill, Mean as CMean, Max as CMax
"""
RUNNING = (
    HEAD
    + """
@register("running")
class Running(vFlow):
    def __init__(self):
        super().__init__()
        self.centroid, self.start = CMean(dim=1), Fill(alpha=2.0)
        self.mean, self.dot, self.load = Mean(dim=1), GeMM(), Load()
        self.mix, self.save, self.top = Add(alpha=0.5, beta=1.0), Save(), topK()

    def create_cache(self, block_size, head_dim):
        return {"c": (1, head_dim), "r": (1, 1)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["k"], cache["c"], loc=loc, ctx=ctx)
        self.start(cache["r"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        now = self.dot(self.mean(q, ctx=ctx), cache["c"], ctx=ctx)
        score = self.mix(self.load(cache["r"], ctx=ctx), now, ctx=ctx)
        self.save(score, cache["r"], ctx=ctx)
        self.top(score, o, ctx=ctx)
"""
)
SMOOTH_QUERY = (
    HEAD
    + """
@register("smooth_query")
class SmoothQuery(vFlow):
    def __init__(self):
        super().__init__()
        self.centroid, self.mean, self.dot = CMean(dim=1), Mean(dim=1), GeMM()
        self.mix, self.save, self.top = Add(alpha=0.5, beta=1.0), Save(), topK()

    def create_cache(self, block_size, head_dim):
        return {"c": (1, head_dim)}

    def create_request_cache(self, block_size, head_dim):
        return {"query": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["k"], cache["c"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        query = self.mix(cache["query"], self.mean(q, ctx=ctx), ctx=ctx)
        self.save(query, cache["query"], ctx=ctx)
        self.top(self.dot(query, cache["c"], ctx=ctx), o, ctx=ctx)
"""
)
UNION = (
    HEAD
    + """
@register("union")
class Both(vFlow):
    def __init__(self):
        super().__init__()
        self.centroid, self.peak = CMean(dim=1), CMax(dim=1)
        self.mean, self.by_mean, self.by_peak = Mean(dim=1), GeMM(), GeMM()
        self.first, self.second, self.union = TopK(3), TopK(k=2), Union()

    def create_cache(self, block_size, head_dim):
        return {"c": (1, head_dim), "m": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["k"], cache["c"], loc=loc, ctx=ctx)
        self.peak(cache["k"], cache["m"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        query = self.mean(q, ctx=ctx)
        table, lengths = self.first(self.by_mean(query, cache["c"], ctx=ctx), ctx=ctx)
        others = self.second(self.by_peak(query, cache["m"], ctx=ctx), ctx=ctx)
        self.union((table, lengths), others, o, ctx=ctx)
"""
)
LENGTHS = (400, 170, 300)
CONFIG = VortexConfig(topk_val=4, block_size=BLOCK, block_reserved_eos=2, dtype="float32")


class Decode:
    """A session over random K and V that is fed random queries, and what it selected."""

    def __init__(self, source: str, target: str, layers: int = 1) -> None:
        self.graph: FlowGraph = trace_source(source)
        generator = torch.Generator().manual_seed(5)
        counts = np.repeat([length // PAGE + 1 for length in LENGTHS], HEADS)
        pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
        shape = (int(counts.sum()) * PAGE, DIM)
        self.pools = [
            KVPool(*(torch.randn(shape, generator=generator) for _ in range(2))) for _ in range(layers)
        ]
        self.seen: list[tuple[ScoreInput, torch.Tensor]] = []
        hooks = Hooks(selected=lambda given, positions: self.seen.append((given, positions)))
        self.session = DecodeSession(
            self.pools, pages, np.array(LENGTHS), GROUP, self.graph, CONFIG, target, hooks
        )
        self.generator = generator

    def step(self) -> torch.Tensor:
        """One step of every layer; returns the query rows of the last one, `[rows, group, dim]`."""
        session = self.session
        session.begin_step()
        for layer in range(len(self.pools)):
            requests = len(session.lengths)
            q = torch.randn(requests, HEADS * GROUP, DIM, generator=self.generator)
            k, v = (torch.randn(requests, HEADS, DIM, generator=self.generator) for _ in range(2))
            session.attend(layer, q, k, v, 0.3)
        return q.view(-1, GROUP, DIM)

    def centroids(self, row: int, reduce: str = "mean", layer: int = 0) -> torch.Tensor:
        """Of the finished blocks of a row of the current batch, `[blocks, dim]`."""
        request = row // HEADS
        full = int(self.session.lengths[request]) // BLOCK
        k, _ = self.pools[layer].blocks(BLOCK)
        blocks = k[torch.from_numpy(self.session.pages.blocks(BLOCK)[row, :full])]
        return blocks.mean(1) if reduce == "mean" else blocks.amax(1)


def best(scores: torch.Tensor, k: int, n: int) -> set[int]:
    """The k best of the blocks between the first and the two last ones."""
    return {1 + int(at) for at in scores[1 : n - 2].topk(min(k, n - 3)).indices}


def chosen(decode: Decode, row: int) -> set[int]:
    """What the last selection chose for a row, without the reserved blocks."""
    given, positions = decode.seen[-1]
    n = int(given.rows.host_n[row])
    assert int(positions[row, -1]) == n - 1
    return {int(at) for at in positions[row]} - {0, n - 2, n - 1}


@pytest.mark.parametrize("target", ON_CPU)
def test_a_saved_field_runs_on_from_step_to_step(target: str) -> None:
    decode = Decode(RUNNING, target)
    running: dict[int, torch.Tensor] = {}
    for _ in range(20):  # long enough that blocks are finished on the way
        q = decode.step()
        for row in range(len(LENGTHS) * HEADS):
            now = decode.centroids(row) @ q[row].mean(0)
            n = -(-int(decode.session.lengths[row // HEADS]) // BLOCK)
            before = running.get(row, torch.zeros(0))
            before = torch.cat([before, torch.full((len(now) - len(before),), 2.0)])  # as Fill left them
            score = 0.5 * before + now
            running[row] = before.clone()
            running[row][1 : n - 2] = score[1 : n - 2]  # the scored blocks, and no others
            assert chosen(decode, row) == best(score, 4, n)


@pytest.mark.parametrize("target", ON_CPU)
def test_a_request_field_belongs_to_its_row_and_layer(target: str) -> None:
    decode = Decode(SMOOTH_QUERY, target, layers=2)
    smooth = torch.zeros(len(LENGTHS) * HEADS, DIM)
    for _ in range(3):
        smooth = 0.5 * smooth + decode.step().mean(1)
        for row in range(len(smooth)):
            n = -(-int(decode.session.lengths[row // HEADS]) // BLOCK)
            assert chosen(decode, row) == best(decode.centroids(row, layer=1) @ smooth[row], 4, n)
    decode.session.keep(np.array([0, 2]))  # the others keep what is theirs
    smooth = 0.5 * smooth[[0, 1, 4, 5]] + decode.step().mean(1)
    for row in range(len(smooth)):
        n = -(-int(decode.session.lengths[row // HEADS]) // BLOCK)
        assert chosen(decode, row) == best(decode.centroids(row, layer=1) @ smooth[row], 4, n)


@pytest.mark.parametrize("target", ON_CPU)
def test_a_union_attends_to_both_selections(target: str) -> None:
    decode = Decode(UNION, target)
    sizes = set()
    for _ in range(4):
        q = decode.step().mean(1)
        for row in range(len(q)):
            n = -(-int(decode.session.lengths[row // HEADS]) // BLOCK)
            one = best(decode.centroids(row) @ q[row], 3, n)
            two = best(decode.centroids(row, "max") @ q[row], 2, n)
            assert chosen(decode, row) == one | two
            sizes.add(len(one | two))
    assert len(sizes) > 1  # rows of different lengths in one batch


@pytest.mark.parametrize("source", [RUNNING, SMOOTH_QUERY, UNION])
def test_targets_give_the_same_outputs(source: str) -> None:
    outputs = []
    for target in ON_CPU:
        decode = Decode(source, target)
        taken = []
        for _ in range(3):
            decode.session.begin_step()
            q = torch.randn(len(LENGTHS), HEADS * GROUP, DIM, generator=decode.generator)
            k, v = (torch.randn(len(LENGTHS), HEADS, DIM, generator=decode.generator) for _ in range(2))
            taken.append(decode.session.attend(0, q, k, v, 0.3))
        outputs.append(torch.stack(taken))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=1e-4, atol=1e-5)
