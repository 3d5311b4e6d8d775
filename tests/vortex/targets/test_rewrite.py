"""The rewritten Quest bound: the same scores, without the large intermediate."""

from __future__ import annotations

import pytest
import torch

from tests.vortex.targets.cases import GROUP, HEAD_DIM, HEADS, Flow, planned, quest, ragged_rows
from vortex.config import VortexConfig
from vortex.graph import FlowGraph, Format, Geometry, Ref
from vortex.runtime.summaries import Summaries
from vortex.targets import LayerCache, get_target
from vortex.targets.compiled import CompiledGraph
from vortex.targets.rewrite import bound_as_products
from vortex.targets.torch import TorchProgram

GEOMETRY = Geometry(16, HEAD_DIM, GROUP)


def unordered() -> FlowGraph:
    """Two fields of which neither is always the greater one."""
    f = Flow()
    a, b = f.field("a", 1, f.head_dim), f.field("b", 1, f.head_dim)
    f.cache("Mean", f.k, to="a", dim=1)
    f.cache("Mean", f.v, to="b", dim=1)
    bound = f("Maximum", f("Multiply", f.q, a), f("Multiply", b, f.q))
    return f.top(f("Max", f("Sum", bound, dim=2), dim=1))


def mean_of_bounds() -> FlowGraph:
    """Mean instead of Sum: not the pattern."""
    f = Flow()
    a, b = f.field("a", 1, f.head_dim), f.field("b", 1, f.head_dim)
    f.cache("Max", f.k, to="a", dim=1)
    f.cache("Min", f.k, to="b", dim=1)
    bound = f("Maximum", f("Multiply", f.q, a), f("Multiply", f.q, b))
    return f.top(f("Max", f("Mean", bound, dim=2), dim=1))


@pytest.mark.parametrize("flow", [quest, unordered])
def test_scores_stay(flow: object) -> None:
    graph = flow()  # type: ignore[operator]
    rows, config = ragged_rows(5, False), VortexConfig(topk_val=3, block_size=16)
    given, table, q = planned(rows, config)
    scores = []
    programs = (
        get_target("reference").program(graph, GEOMETRY, "float32"),
        TorchProgram(graph, GEOMETRY, "float32"),
    )
    for program in programs:
        layer = LayerCache(0, rows.pool)
        summaries = Summaries(program, [layer], rows.requests, HEADS)
        summaries.update(layer, summaries.due(table, given.requests, rows.lengths // 16))
        scores.append(program.scores(q, layer, table, given)[0][given.valid])
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-5, atol=1e-5)


def test_the_large_intermediate_is_gone() -> None:
    assert CompiledGraph(quest(), GEOMETRY, "float32").widest == GROUP * HEAD_DIM
    assert TorchProgram(quest(), GEOMETRY, "float32").widest == HEAD_DIM
    maxima = [step.op.name for step in TorchProgram(unordered(), GEOMETRY, "float32").live]
    assert maxima.count("Maximum") == maxima.count("Minimum") == 1  # of the fields, not of the products
    assert "Maximum" not in [step.op.name for step in TorchProgram(quest(), GEOMETRY, "float32").live]


def bound(change: str) -> FlowGraph:
    """The bound of Quest over operands that went through another op, beside a field of requests."""
    f = Flow()
    high, low, q = f.field("high", 1, f.head_dim), f.field("low", 1, f.head_dim), f.q
    f.field("step", 1, 1, Format.SLOTTED)
    f.cache("Max", f.cache("Log", f.k) if change == "field" else f.k, to="high", dim=1)
    f.cache("Min", f.k, to="low", dim=1)
    if change == "saved":
        f("Save", f("Load", low), to="low")
    elif change == "query":
        q = f("Exp", q)
    elif change == "masked":
        q = f("Multiply", q, f("MaskSlice", q, start=0, end=8, dim=2))
    elif change == "scaled":
        q = f("Multiply", q, f("MaskSlice", q, start=0, end=8, dim=2, alpha=1e38))
    f("Save", f("Add_Mul", Ref.field("step"), alpha=1.0), to="step")
    sides = f("Multiply", q, high), f("Multiply", q, low)
    return f.top(f("Max", f("Sum", f("Maximum", *sides), dim=2), dim=1))


@pytest.mark.parametrize("change", ["field", "saved", "query", "scaled"])
def test_operands_that_may_be_infinite_are_left_alone(change: str) -> None:
    graph = bound(change).instantiate(GEOMETRY)
    assert bound_as_products(graph) is graph


@pytest.mark.parametrize("change", ["none", "masked"])
def test_fields_keep_their_formats(change: str) -> None:
    graph = bound(change).instantiate(GEOMETRY)
    rewritten = bound_as_products(graph)
    assert rewritten is not graph
    assert rewritten.fields == graph.fields
    assert {field.format for field in rewritten.fields} == {Format.PAGED, Format.SLOTTED}


def test_other_graphs_are_left_alone() -> None:
    graph = mean_of_bounds().instantiate(GEOMETRY)
    assert bound_as_products(graph) is graph


def test_summaries_that_overflow_float16_are_not_rewritten() -> None:
    """0 * inf is no part of the bound."""
    rewritten = TorchProgram(quest(), GEOMETRY, "bfloat16").graph
    assert "GeMM" in {node.op for node in rewritten.indexer}
    kept = TorchProgram(quest(), GEOMETRY, "float16").graph
    assert "GeMM" not in {node.op for node in kept.indexer}
