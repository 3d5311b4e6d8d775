"""Graphs that are too large to be real are refused by their sizes, before anything is computed for them."""

from __future__ import annotations

import time

import pytest

from vortex.errors import FlowTypeError, GraphError
from vortex.flow import load_graph, trace_source
from vortex.graph import Geometry, Ref, Stage
from vortex.graph.build import MAX_OPS, GraphBuilder
from vortex.graph.limits import check_size

SHIPPED = ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention")
FLOW = """
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import *
from vortex_torch.cache import Mean as CMean

@register("large")
class Large(vFlow):
    def __init__(self):
        super().__init__()
        self.reduction, self.out = CMean(dim=1), topK()

    def create_cache(self, block_size, head_dim):
        return {fields}

    def forward_cache(self, cache, loc, ctx):
        self.reduction(cache["k"], cache["c"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        x = Max(dim=1)(q, ctx=ctx)
        {body}
        self.out(GeMM()(x, cache["c"], ctx=ctx), o, ctx=ctx)
"""


def trace(fields: str = '{"c": (1, head_dim)}', body: str = "pass") -> None:
    check_size(trace_source(FLOW.format(fields=fields, body=body)))


def test_the_flow_itself_is_fine() -> None:
    trace()
    for name in SHIPPED:
        for block_size in (1, 8, 128):
            check_size(load_graph(name).instantiate(Geometry(block_size, 256, 16)))


def test_a_field_of_a_billion_rows() -> None:
    with pytest.raises(GraphError, match=r"field 'big'.*more than"):
        trace(fields='{"c": (1, head_dim), "big": (10**9, head_dim)}')


def test_many_fields_add_up() -> None:
    with pytest.raises(GraphError, match="field elements"):
        trace(fields='{"c": (1, head_dim), **{f"x{i}": (16, head_dim) for i in range(40)}}')


def test_nested_kron() -> None:
    body = "y = cache['c']\n        for _ in range(6):\n            y = Kron()(y, y, ctx=ctx)"
    started = time.perf_counter()
    with pytest.raises((GraphError, FlowTypeError)):
        trace(body=body)
    assert time.perf_counter() - started < 1.0


def test_numbers_that_square_with_every_op() -> None:
    started = time.perf_counter()
    with pytest.raises(FlowTypeError, match="larger than any real size"):
        trace(
            fields='{"c": (1, head_dim), "x": (2, 2)}',
            body="y = cache['x']\n        for _ in range(60):\n            y = Kron()(y, y, ctx=ctx)",
        )
    assert time.perf_counter() - started < 1.0


def test_expensive_products() -> None:
    with pytest.raises(GraphError, match="flops"):
        trace(body="for _ in range(100):\n            GeMM()(cache['k'], cache['k'], ctx=ctx)")


def test_a_loop_of_ops_ends_early() -> None:
    started = time.perf_counter()
    with pytest.raises(FlowTypeError, match=f"at most {MAX_OPS} ops"):
        trace(body="while True:\n            x = Abs()(x, ctx=ctx)")
    assert time.perf_counter() - started < 2.0


def test_sizes_that_explode() -> None:
    with pytest.raises((GraphError, FlowTypeError)):
        trace(fields='{"c": (1, head_dim), "big": (block_size ** 8, head_dim ** 8)}')
    with pytest.raises((GraphError, FlowTypeError)):
        trace(fields='{"c": (1, head_dim), "big": (1 << (block_size * 1000), 1)}')


def test_a_graph_may_outgrow_the_limits_at_larger_blocks() -> None:
    builder = GraphBuilder(geometry=Geometry(16, 64, 4))
    builder.declare("c", (builder.injected["k"].rows, 64 * 16))
    tall = builder.add(Stage.INDEXER, "Max", {"dim": 1}, [Ref.field("c")])
    score = builder.add(Stage.INDEXER, "Max", {"dim": 2}, [tall])
    builder.add(Stage.INDEXER, "topK", {}, [score])
    graph = builder.finish()
    check_size(graph)
    with pytest.raises(GraphError, match="field elements"):
        graph.instantiate(Geometry(128, 64, 4))
