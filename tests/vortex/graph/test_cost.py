"""The cost model against sums done by hand, and against the published byte counts."""

from __future__ import annotations

import numpy as np
import pytest

from vortex.flow import load_graph, trace_source
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.cost import row_cost, row_costs

AT = Geometry(block_size=16, head_dim=128, group=4)
CENTROID, SOFTMAX, QUEST = (
    load_graph(name)
    for name in ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention")
)
ROWS = 16 * 8  # batch 16, 8 kv heads


def test_dense_is_keys_and_values() -> None:
    cost = row_cost(None, AT, 32768, 10**6)
    assert cost.bytes == cost.attention == 2 * 32768 * 128 * 2
    assert cost.bytes * ROWS == pytest.approx(2.15e9, rel=0.01)
    assert row_cost(None, AT, 32768, 3).bytes == cost.bytes


def test_published_floors_at_32k() -> None:
    """One layer of Qwen3-8B at batch 16: centroids 67 MB, Quest 134 MB, 64 blocks of 16 are 67 MB."""
    for graph, megabytes in ((CENTROID, 67), (QUEST, 134)):
        cost = row_cost(graph, AT, 32768, 64)
        assert cost.scores * ROWS == pytest.approx(megabytes * 1e6, rel=0.01)
        assert cost.attention * ROWS == pytest.approx(67e6, rel=0.01)


def test_a_sparse_row_by_hand() -> None:
    seq_len, chosen, bos, eos = 1000, 10, 1, 2
    n = 63  # ceil(1000 / 16); the last block holds 8 tokens
    cost = row_cost(QUEST, AT, seq_len, chosen, kv_itemsize=4, field_itemsize=2, bos=bos, eos=eos)
    assert cost.summaries == (16 * 128 * 4 + 2 * 128 * 2) / 16
    assert cost.scores == (n - bos - eos) * 2 * 128 * 2
    assert cost.selection == (n - bos - eos) * 2 * 2
    assert cost.attention == (9 * 16 + 8) * 2 * 128 * 4
    assert cost.bytes == cost.summaries + cost.scores + cost.selection + cost.attention


def test_a_row_that_keeps_every_block_is_dense() -> None:
    for chosen in (63, 64, 10**9):
        assert row_cost(QUEST, AT, 1000, chosen).bytes == row_cost(None, AT, 1000, 0).bytes
    assert (
        row_cost(QUEST, AT, 1000, 62).bytes > row_cost(None, AT, 1000, 0).bytes
    )  # scored, and nearly all read


def test_bytes_grow_with_what_is_chosen_and_scored() -> None:
    by_chosen = [row_cost(QUEST, AT, 8192, chosen).bytes for chosen in range(3, 500, 20)]
    assert by_chosen == sorted(by_chosen)
    assert len(set(by_chosen)) == len(by_chosen)
    assert row_cost(CENTROID, AT, 8192, 32).bytes < row_cost(QUEST, AT, 8192, 32).bytes


def test_ops_over_blocks_pass_their_operands_through_memory() -> None:
    plain, softmax = (row_cost(graph, AT, 8192, 32) for graph in (CENTROID, SOFTMAX))
    scored = 8192 // 16 - 2
    # 4 logits a block: written and read by the softmax, whose shares are written and read once more.
    assert softmax.scores - plain.scores == scored * 4 * 2 * (2 + 2)


def reads_keys() -> FlowGraph:
    builder = GraphBuilder()
    logits = builder.add(Stage.INDEXER, "GeMM", {}, [Ref.query(), Ref.field("k")])
    best = builder.add(
        Stage.INDEXER, "Max", {"dim": 1}, [builder.add(Stage.INDEXER, "Max", {"dim": 2}, [logits])]
    )
    builder.add(Stage.INDEXER, "topK", {}, [best])
    return builder.finish()


def test_reading_the_keys_to_score_costs_the_keys() -> None:
    cost = row_cost(reads_keys(), AT, 8192, 32)
    assert cost.scores == (8192 // 16 - 2) * 16 * 128 * 2
    assert cost.bytes > 0.5 * row_cost(None, AT, 8192, 0).bytes
    assert cost.summaries == 0


def test_dead_ops_and_unused_fields_cost_nothing() -> None:
    builder = GraphBuilder()
    for name in ("c", "unused"):
        builder.declare(name, (1, builder.injected["k"].cols))
    builder.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("k")], "c")
    builder.add(Stage.CACHE, "Max", {"dim": 1}, [Ref.field("v")], "unused")
    builder.add(Stage.INDEXER, "Exp", {}, [Ref.field("v")])
    query = builder.add(Stage.INDEXER, "Mean", {"dim": 1}, [Ref.query()])
    builder.add(Stage.INDEXER, "topK", {}, [builder.add(Stage.INDEXER, "GeMM", {}, [query, Ref.field("c")])])
    assert row_cost(builder.finish(), AT, 8192, 32) == row_cost(CENTROID, AT, 8192, 32)


def test_arrays_agree_with_single_rows() -> None:
    rng = np.random.default_rng(0)
    seq_len, chosen = rng.integers(1, 9000, 200), rng.integers(3, 300, 200)
    for graph in (None, CENTROID, SOFTMAX, QUEST):
        costs = row_costs(graph, AT)
        assert costs.bytes(seq_len, chosen) == pytest.approx(
            [costs.row(int(s), int(c)).bytes for s, c in zip(seq_len, chosen, strict=True)]
        )


def test_flops_of_a_row() -> None:
    cost = row_cost(CENTROID, AT, 4096, 10)
    tokens, scored = 10 * 16, 256 - 2
    assert cost.flops == 4 * 4 * 128 * tokens + 2 * 128 * scored + 4 * 128 + 16 * 128 / 16 + 4 * scored


def test_mla_reads_the_latent_once() -> None:
    source = (
        "from vortex_torch.flow import vFlowMLA, register\n"
        "from vortex_torch.indexer import Mean, GeMM, topK\n"
        "from vortex_torch.cache import Mean as CMean\n"
        "@register('m')\nclass M(vFlowMLA):\n"
        "    def __init__(self):\n        self.a, self.b, self.c, self.d = Mean(), GeMM(), topK(), CMean()\n"
        "    def create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):\n"
        "        return {'c': (1, kv_lora_rank + qk_rope_head_dim)}\n"
        "    def forward_cache(self, cache, loc, ctx):\n"
        "        self.d(cache['latent'], cache['c'], loc=loc, ctx=ctx)\n"
        "    def forward_indexer(self, q, o, cache, ctx):\n"
        "        self.c(self.b(self.a(q, ctx=ctx), cache['c'], ctx=ctx), o, ctx=ctx)\n"
    )
    cost = row_cost(trace_source(source), Geometry.mla(64, 512, 64, 16), 64 * 100, 10)
    assert cost.attention == 10 * 64 * 576 * 2
    assert cost.scores == 98 * 576 * 2
