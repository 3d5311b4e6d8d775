"""Sizes that Python code uses without leaving a trace: the graph must not stand for other ones."""

from __future__ import annotations

import pytest

from tests.vortex.flow.flows import flow
from vortex.errors import GuardError
from vortex.flow import load_source, trace_flow, trace_source
from vortex.flow.trace import run
from vortex.graph import FlowGraph, Geometry
from vortex.graph.render import render_flow

SIZES = [
    Geometry(block_size, head_dim, group)
    for block_size in (4, 16, 64, 128)
    for head_dim in (16, 64, 96, 128, 256)
    for group in (1, 4, 7)
]
HIDDEN = {  # each is a plain number by the time the flow uses it
    "a product with a float": "int(0.25 * head_dim)",
    "a plateau": "min(8, int(0.25 * head_dim))",
    "a greatest common divisor": "__import__('math').gcd(head_dim, 64)",
    "a logarithm": "int(__import__('math').log2(head_dim) / 4) + 1",
    "a root": "__import__('math').isqrt(head_dim) // 16 + 1",
    "a sum with a float": "int(0.0 + block_size // 64) + 1",
    "a range": "len(range(0, block_size, 64))",
}


def masked(width: str) -> str:
    """A flow that masks `width` features of the query."""
    return flow(
        create=f"self.width = {width}",
        end="topK()(GeMM()(Multiply()(Mean()(q, ctx=ctx), MaskSlice(0, self.width, 2)(Mean()(q, ctx=ctx), "
        "ctx=ctx), ctx=ctx), cache['c'], ctx=ctx), o, ctx=ctx)",
    )


def numbers(graph: FlowGraph) -> str:
    """The graph's algorithm with numbers for all sizes."""
    return repr([(node.op, [(n, getattr(v, "hint", v)) for n, v in node.attrs]) for _, node in graph.nodes()])


def check(source: str) -> int:
    """The graph serves a geometry with what the flow says there, or refuses it. Returns how many it
    serves."""
    graph = trace_source(source)
    (cls,) = load_source(source).values()
    served = 0
    for geometry in SIZES:
        try:
            found = graph.instantiate(geometry)
        except GuardError:
            continue
        served += 1
        assert numbers(found) == numbers(run(cls(), geometry).canonical()), geometry
    return served


@pytest.mark.parametrize("width", HIDDEN.values(), ids=HIDDEN)
def test_a_hidden_size_is_fixed_by_a_guard(width: str) -> None:
    assert 0 < check(masked(width)) < len(SIZES)


@pytest.mark.parametrize(
    "op",
    [
        "Add_Mul(alpha=block_size // 64)",
        "Softmax(0, block_size // 64)",
        "Conv1d([[[block_size // 64]]])",
        "Max(1 + min(1, block_size // 64))",
    ],
)
def test_a_size_that_an_op_keeps_as_a_number_is_fixed(op: str) -> None:
    end = "topK()(self.op(GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx), ctx=ctx), o, ctx=ctx)"
    assert 0 < check(flow(create=f"self.op = {op}", end=end)) < len(SIZES)


def test_padding_that_a_flow_asks_for_is_a_fact_of_its_graph() -> None:
    end = "x = GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx)\n"
    end += "        if q.needs_padding(): x = Abs()(x, ctx=ctx)\n        topK()(x, o, ctx=ctx)"
    assert 0 < check(flow(end=end)) < len(SIZES)


def test_what_the_authors_code_refuses_is_excluded_and_nothing_else() -> None:
    source = masked("8 if __import__('math').log2(head_dim).is_integer() else 1 // 0")
    graph = trace_source(source)
    for served in (64, 128, 256):
        graph.instantiate(Geometry(16, served, 4))
    with pytest.raises(GuardError, match="head_dim != 96"):
        graph.instantiate(Geometry(16, 96, 4))
    assert trace_source(render_flow(graph, "again")).hash == graph.hash


def test_an_object_keeps_the_sizes_it_was_initialised_with() -> None:
    (cls,) = load_source(flow(create="self.width, self.block = head_dim, block_size")).values()
    made = cls()
    made.initialize(16, 128)
    assert (int(made.width), int(made.block)) == (128, 16)
    made.initialize(32, 64)
    assert (int(made.width), int(made.block)) == (64, 32)
    assert trace_flow(made).hash == made.graph.hash
