"""The cost model against sums done by hand, and against the published byte counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.vortex.graph.random_graphs import random_graph
from vortex.errors import GraphError
from vortex.flow import get, list_keys, load_graph
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.cost import cost_report, row_cost, row_costs
from vortex.graph.limits import node_flops
from vortex.graph.model import Format
from vortex.graph.work import Cost, Work
from vortex.ops import Args, Row, find_op
from vortex.weights import Weight

AT = Geometry(block_size=16, head_dim=128, group=4)
CENTROID, SOFTMAX, QUEST, RUNNING = (
    load_graph(name)
    for name in (
        "block_sparse_attention",
        "gqa_block_sparse_attention",
        "gqa_quest_sparse_attention",
        "running_avg_block_sparse",
    )
)
ROWS = 16 * 8  # batch 16, 8 kv heads


def test_dense_is_keys_and_values() -> None:
    cost = row_cost(None, AT, 32768, 10**6)
    # Each token: a key and a value of 128 numbers of 2 bytes; 4 heads x 128 x (2 + 2) operations.
    assert cost == Cost(attention=Work(32768 * 2 * 128 * 2, 0, 32768 * 4 * 128 * 4))
    assert cost.bytes * ROWS == pytest.approx(2.15e9, rel=0.01)
    assert row_cost(None, AT, 32768, 3).bytes == cost.bytes


# Block 16, head dim 128, group 4, 2 bytes a number, 32768 tokens: 2048 blocks. 64 are attended to, the first
# and the last one always, so 2046 are scored. Attention: 64 x 16 = 1024 tokens of 512 bytes, and
# 4 heads x 128 x 4 = 2048 operations a token.
ATTENTION = Work(524_288, 0, 2_097_152)
# A score has 2 bytes, is written once and read once: 2046 x 2. topK compares about 4 times a block.
SELECTION = Work(4_092, 4_092, 8_184)


def test_centroid_by_hand() -> None:
    assert row_cost(CENTROID, AT, 32768, 64) == Cost(
        # A finished block, every 16 tokens: 16 x 128 keys = 4096 bytes read and added up, 256 bytes written.
        summaries=Work(256, 16, 128),
        # 2046 centroids of 256 bytes; 2 x 128 operations each, and 4 x 128 for the mean query.
        scores=Work(523_776, 0, 523_776 + 512),
        selection=SELECTION,
        attention=ATTENTION,
        # The query, 4 x 128 x 2 bytes, is read by one kernel, which leaves its mean to the other.
        row_values=Work(1024 + 256, 256, 0),
    )


def test_quest_by_hand() -> None:
    assert row_cost(QUEST, AT, 32768, 64) == Cost(
        # The keys are read once for both extremes.
        summaries=Work(256, 32, 256),
        # 2046 x 2 x 256 bytes. Two products and a maximum: 3 x 4 x 128; the sum of 4 x 128; the best of 4.
        scores=Work(1_047_552, 0, 2046 * (1536 + 512 + 4)),
        selection=SELECTION,
        attention=ATTENTION,
        row_values=Work(1024, 0, 0),
    )


def test_softmax_by_hand() -> None:
    assert row_cost(SOFTMAX, AT, 32768, 64) == Cost(
        summaries=Work(256, 16, 128),
        # Centroids as above. 4 logits of 2 bytes a block are written and read, 4 shares written and read:
        # 2046 x 8 = 16,368 bytes each time. Logits take 2 x 4 x 128 operations, shares 6 x 4, the best 4.
        scores=Work(523_776 + 2 * 16_368, 2 * 16_368, 2046 * (1024 + 24 + 4)),
        selection=SELECTION,
        attention=ATTENTION,
        row_values=Work(1024, 0, 0),
    )


def test_mla_by_hand() -> None:
    """512 + 64 features, 16 heads, block 32: 1024 blocks, 1022 scored, 64 x 32 = 2048 tokens attended to."""
    graph = load_graph("rope_aware_block_sparse_mla")
    assert row_cost(graph, Geometry.mla(32, 512, 64, 16), 32768, 64) == Cost(
        # 32 latents of 576 x 2 bytes read and one written, every 32 tokens; 32 x 576 numbers added up.
        summaries=Work(1152, 36, 576),
        # 1022 x 1152 bytes, 2 x 576 operations each; the mean of 16 x 576.
        scores=Work(1_177_344, 0, 1_177_344 + 9_216),
        selection=Work(2_044, 2_044, 4_088),
        # The latent is read once, 1152 bytes: all 576 features are the key, the first 512 the value.
        attention=Work(2_359_296, 0, 2048 * 16 * 2 * (576 + 512)),
        row_values=Work(16 * 1152 + 1152, 1152, 0),
    )


def test_fields_that_the_indexer_saves() -> None:
    """As the centroid flow, but half of the last step's score stays: read and written once a block."""
    running, centroid = (row_cost(graph, AT, 32768, 64) for graph in (RUNNING, CENTROID))
    assert running.scores.bytes_read == centroid.scores.bytes_read + 2046 * 2
    assert running.scores.bytes_written == 2046 * 2
    assert running.selection == centroid.selection
    assert running.summaries.bytes_written == centroid.summaries.bytes_written + 2 / 16  # starts at 0


def test_published_floors_at_32k() -> None:
    """One layer of Qwen3-8B at batch 16: centroids 67 MB, Quest 134 MB, 64 blocks of 16 are 67 MB."""
    for graph, megabytes in ((CENTROID, 67), (QUEST, 134)):
        step = cost_report(graph, AT, [32768] * 16, [64] * 16, heads=8).step
        assert step.scores.bytes == pytest.approx(megabytes * 1e6, rel=0.01)
        assert step.attention.bytes == pytest.approx(67e6, rel=0.01)


def test_a_short_last_block_other_reserves_and_formats() -> None:
    seq_len, chosen, bos, eos = 1000, 10, 1, 2
    n = 63  # ceil(1000 / 16); the last block holds 8 tokens
    cost = row_cost(QUEST, AT, seq_len, chosen, kv_itemsize=4, field_itemsize=1, bos=bos, eos=eos)
    assert (cost.summaries.bytes_read, cost.summaries.bytes_written) == (16 * 128 * 4 / 16, 2 * 128 / 16)
    assert cost.scores.bytes == (n - bos - eos) * 2 * 128
    assert cost.selection.bytes == (n - bos - eos) * 2
    assert cost.attention.bytes == (9 * 16 + 8) * 2 * 128 * 4
    parts = (cost.summaries, cost.scores, cost.selection, cost.attention)
    assert cost.bytes == sum(part.bytes for part in parts)
    assert cost.flops == sum(part.flops for part in parts)


def test_a_row_that_keeps_every_block_is_dense() -> None:
    for chosen in (63, 64, 10**9):
        assert row_cost(QUEST, AT, 1000, chosen) == row_cost(None, AT, 1000, 0)
    # Scored, and nearly all read: dearer than dense.
    assert row_cost(QUEST, AT, 1000, 62).bytes > row_cost(None, AT, 1000, 0).bytes


def test_bytes_grow_with_what_is_chosen_and_scored() -> None:
    by_chosen = [row_cost(QUEST, AT, 8192, chosen).bytes for chosen in range(3, 500, 20)]
    assert by_chosen == sorted(by_chosen)
    assert len(set(by_chosen)) == len(by_chosen)
    assert row_cost(CENTROID, AT, 8192, 32).bytes < row_cost(QUEST, AT, 8192, 32).bytes


class Flow:
    """Shorthand over GraphBuilder: `c` is the centroid, `x` its product with the mean query."""

    def __init__(self) -> None:
        self.build = GraphBuilder("gqa", AT)
        self.q, self.k, self.c = Ref.query(), Ref.field("k"), Ref.field("c")
        self.build.declare("c", (1, self.build.injected["k"].cols))
        self.build.add(Stage.CACHE, "Mean", {"dim": 1}, [self.k], "c")
        self.x = self("GeMM", self("Mean", self.q, dim=1), self.c)

    def __call__(self, op: str, *inputs: Ref, to: str | None = None, **attrs: object) -> Ref:
        return self.build.add(Stage.INDEXER, op, attrs, inputs, to)

    def top(self, score: Ref) -> FlowGraph:
        self("topK", score)
        return self.build.finish()


def test_reading_the_keys_to_score_costs_the_keys() -> None:
    f = Flow()
    graph = f.top(f("Max", f("Max", f("GeMM", f.q, f.k), dim=1), dim=2))
    cost = row_cost(graph, AT, 8192, 32)
    assert cost.scores.bytes == (8192 // 16 - 2) * 16 * 128 * 2
    assert cost.bytes > 0.5 * row_cost(None, AT, 8192, 0).bytes
    assert cost.summaries == Work()


def test_dead_ops_and_unused_fields_cost_nothing() -> None:
    f = Flow()
    f.build.declare("unused", (1, f.build.injected["k"].cols))
    f.build.add(Stage.CACHE, "Max", {"dim": 1}, [Ref.field("v")], "unused")
    f("Exp", Ref.field("v"))
    assert row_cost(f.top(f.x), AT, 8192, 32) == row_cost(CENTROID, AT, 8192, 32)


def test_a_score_that_others_read_too_is_written_once() -> None:
    f = Flow()
    f.build.declare("share", (1, 1))
    f("Save", f("Softmax", f.x), to="share")
    cost = row_cost(f.top(f.x), AT, 32768, 64)
    assert (cost.selection.bytes_read, cost.selection.bytes_written) == (4092, 4092)
    # The softmax reads the score and writes its shares, the saving kernel reads these and writes the field.
    assert (cost.scores.bytes_read, cost.scores.bytes_written) == (523_776 + 2 * 4092, 2 * 4092)


def test_an_op_over_blocks_reads_a_loaded_field_in_place() -> None:
    f = Flow()
    centre = f("Mean", f("Load", f.c), dim=0)
    graph = f.top(f("Add", f.x, f("GeMM", f("Mean", f.q, dim=1), centre), beta=-1.0))
    cost = row_cost(graph, AT, 32768, 64)
    # One kernel reads the centroids for their mean, one for the products, which it leaves to the last.
    assert (cost.scores.bytes_read, cost.scores.bytes_written) == (2 * 523_776 + 4092, 4092)
    assert cost.scores.flops == 2046 * (2 * 128 + 128 + 1) + 4 * 128 + 2 * 128


def test_a_request_field_moves_once_a_row() -> None:
    f = Flow()
    f.build.declare("last", (1, 128), Format.SLOTTED)
    mean = f("Mean", f.q, dim=1)
    mixed = f("Add", f("Load", Ref.field("last")), mean, alpha=0.5)
    f("Save", mixed, to="last")
    plain, cost = (row_cost(graph, AT, 32768, 64) for graph in (CENTROID, f.top(f("GeMM", mixed, f.c))))
    assert cost.scores.bytes_read == plain.scores.bytes_read + 256
    assert cost.scores.bytes_written == 256
    assert cost.scores.flops == plain.scores.flops + 128


def test_constants_are_read_once_a_step_and_layer() -> None:
    f = Flow()
    weight = Weight.of([[[0.5] * 128] * 2] * 3)  # for 3 layers: [2, 128], 1024 bytes in float32
    mapped = f("GeMM", f("Mean", f.q, dim=1), f("Parameter", value=weight))  # [1, 2, 1]
    graph = f.top(f("Add", f.x, f("Max", mapped, dim=1)))
    alone, plain = (row_cost(given, AT, 32768, 64) for given in (graph, CENTROID))
    assert alone.scores.bytes == plain.scores.bytes + 1024
    # Two of three requests are sparse; 8 heads, 5 layers. The dense one reads no constants.
    report = cost_report(graph, AT, [32768, 32768, 640], [64, 64, 40], heads=8, layers=5)
    without = cost_report(CENTROID, AT, [32768, 32768, 640], [64, 64, 40], heads=8, layers=5)
    assert report.step.scores.bytes == pytest.approx(without.step.scores.bytes + 5 * 1024)
    assert report.rows[2] == row_cost(None, AT, 640, 40)
    assert without.step.attention == (without.rows[0].attention * 2 + without.rows[2].attention) * 40


def test_learned_queries_read_the_weights_of_one_layer() -> None:
    weights = Weight.of_bytes((3, 4, 128, 128), bytes(3 * 4 * 128 * 128 * 4))
    f = Flow()
    query = f("LearnedQuery", f.q, Wq=weights)
    cost = row_cost(f.top(f("GeMM", query, f.c)), AT, 32768, 64)
    assert cost.scores.bytes == 523_776 + 4 * 128 * 128 * 4
    assert cost.scores.flops == 523_776 + 2 * 4 * 128 * 128 + 4 * 128


def union(k0: int, k1: int) -> FlowGraph:
    f = Flow()
    energy = f("L2Norm", f("Load", f.c), dim=2)
    f("Union", f("TopK", f.x, k=k0), f("TopK", energy, k=k1))
    return f.build.finish()


def test_a_union_costs_the_most_that_it_can_choose_unless_told() -> None:
    costs = row_costs(union(20, 10), AT)
    row = costs.row(32768, 64)
    assert row.scores.bytes == 523_776
    assert row.selection.bytes == 2 * SELECTION.bytes
    assert row.attention.bytes == (20 + 10 + 2) * 16 * 512
    assert costs.row(32768, 64, attended=25).attention.bytes == 25 * 16 * 512
    assert costs.row(33 * 16, 5).attention.bytes == 32 * 16 * 512
    assert costs.row(31 * 16, 5).attention.bytes == 31 * 16 * 512  # all blocks, and scored all the same
    assert costs.row(31 * 16, 5).scores.bytes == 29 * 256
    assert costs.row(31 * 16, 31) == row_cost(None, AT, 31 * 16, 31)
    report = cost_report(union(20, 10), AT, [32768, 32768], [64, 64], [25, 30])
    assert [row.attention.bytes for row in report.rows] == [25 * 16 * 512, 30 * 16 * 512]


def test_arrays_agree_with_single_rows() -> None:
    rng = np.random.default_rng(0)
    seq_len, chosen = rng.integers(1, 9000, 200), rng.integers(3, 300, 200)
    for graph in (None, CENTROID, SOFTMAX, QUEST, union(20, 10)):
        costs = row_costs(graph, AT)
        assert costs.bytes(seq_len, chosen) == pytest.approx(
            [costs.row(int(s), int(c)).bytes for s, c in zip(seq_len, chosen, strict=True)]
        )


def counted_flops(run: object, *args: object) -> int:
    with FlopCounterMode(display=False) as counter:
        run(*args)  # type: ignore[operator]
    return counter.get_total_flops()


def some_graphs() -> Iterator[FlowGraph]:
    """Instantiated ones: those that are shipped and random ones."""
    for name in [name for name in list_keys() if get(name).__module__.startswith("vortex.")]:
        graph = load_graph(name)
        yield graph.instantiate(Geometry.mla(32, 16, 8, 4) if graph.kind == "mla" else Geometry(32, 16, 4))
    for seed in range(100):
        with suppress(GraphError):  # too large to be real
            yield random_graph(Random(seed), Geometry(8, 16, 4), ops=12).instantiate(Geometry(8, 16, 4))


def test_flops_of_matrix_products_are_those_torch_counts() -> None:
    found = 0
    for graph in some_graphs():
        for stage, node in graph.nodes():
            if node.op != "GeMM":
                continue
            types = [graph.type_of(stage, ref) for ref in node.inputs]
            blocks = [5 if t.has_blocks else 1 for t in types]
            inputs = tuple(
                torch.ones(count, t.rows.hint, t.cols.hint) for count, t in zip(blocks, types, strict=True)
            )
            run = find_op(stage, node.op).reference
            counted = counted_flops(run, Args(dict(node.attrs)), inputs, Row(5))
            assert counted == node_flops(graph, stage, node) * max(blocks)
            found += 1
    assert found > 20


@pytest.mark.parametrize("at", [AT, Geometry.mla(32, 512, 64, 16)], ids=str)
def test_flops_of_attention_are_those_torch_counts(at: Geometry) -> None:
    from vortex.targets.reference import _attention

    tokens, value = 10 * at.block_size, at.kv_lora_rank or at.head_dim
    q, k = torch.ones(at.group, at.head_dim), torch.ones(tokens, at.head_dim)
    assert counted_flops(_attention, q, k, k[:, :value], 1.0) == row_cost(None, at, tokens, 10).flops
