"""Rendered flow files are the same algorithm, and read like ones a person wrote."""

from __future__ import annotations

import ast
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vortex.graph.random_graphs import plain_ops, random_graph
from vortex.errors import GraphError
from vortex.flow import get, list_keys, load_graph, load_source, trace_source
from vortex.flow.trace import run
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.render import render_flow
from vortex.ops import stage_ops

SHIPPED = [name for name in list_keys() if get(name).__module__.startswith("vortex.flow.algorithms")]
RANDOM = 500


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_flows_round_trip(name: str) -> None:
    graph = load_graph(name)
    source = render_flow(graph, f"{name}_again")
    assert trace_source(source).hash == graph.hash
    assert render_flow(trace_source(source), f"{name}_again") == source


def test_random_graphs_round_trip() -> None:
    """Of both kinds, over the whole op set."""
    seen = set()
    ops = [op.name for op in plain_ops(Stage.INDEXER)]
    at = {"gqa": Geometry(16, 32, 4), "mla": Geometry.mla(16, 32, 8, 4)}
    for seed in range(RANDOM):
        rng = Random(seed)
        kind, must = ("gqa", "gqa", "mla")[seed % 3], ops[seed % len(ops)]
        graph = random_graph(rng, at[kind], ops=rng.choice((3, 6, 12)), kind=kind, must=must)
        source = render_flow(graph, "random_flow")
        (flow,) = load_source(source).values()
        assert run(flow(), at[kind]).hash == graph.hash, f"seed {seed}"
        seen |= {(stage, node.op) for stage, node in graph.canonical().nodes()}
    assert seen == {(stage, op) for stage in Stage for op in stage_ops(stage)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_one_trace_of_a_rendered_graph_serves_all_sizes(seed: int) -> None:
    rng = Random(seed)
    graph = random_graph(rng, ops=rng.choice((3, 8, 30)))
    source = render_flow(graph, "random_flow")
    assert trace_source(source).hash == graph.hash
    assert max(len(line) for line in source.splitlines() if "[[" not in line) <= 240


def test_names_say_what_is_computed() -> None:
    source = render_flow(load_graph("block_sparse_attention"), "my_flow")
    tree = ast.parse(source)
    (cls,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert cls.name == "MyFlow"
    assert ast.get_docstring(cls) == "score = GeMM(Mean(q), k_mean)"
    assert 'return {"k_mean": (1, head_dim)}' in source
    assert "self.q_mean = Mean(dim=1)" in source
    assert 'score = self.score(q_mean, cache["k_mean"], ctx=ctx)  # [S, 1, 1]' in source
    assert "import torch\n" in source


def sized(use_group: bool, guards: tuple[str, ...] = ()) -> FlowGraph:
    builder = GraphBuilder()
    key = builder.injected["k"]
    builder.declare("c", (key.rows // 4, key.cols))
    builder.add(Stage.CACHE, "MeanInterleave", {"dim": 1, "k": 4}, [Ref.field("k")], "c")
    query = builder._query
    end, axis = (query.rows // 2, 1) if use_group else (query.cols // 2, 2)
    mask = builder.add(Stage.INDEXER, "MaskSlice", {"start": 0, "end": end, "dim": axis}, [Ref.query()])
    masked = builder.add(Stage.INDEXER, "Multiply", {}, [Ref.query(), mask])
    logits = builder.add(Stage.INDEXER, "GeMM", {}, [masked, Ref.field("c")])
    best = builder.add(Stage.INDEXER, "Max", {"dim": 1}, [logits])
    score = builder.add(Stage.INDEXER, "Max", {"dim": 2}, [best])
    builder.add(Stage.INDEXER, "topK", {}, [score])
    return builder.finish(guards)


@pytest.mark.parametrize("use_group", [False, True])
@pytest.mark.parametrize("guards", [(), ("block_size%4 == 0", "group >= 2"), ("head_dim == 128",)])
def test_symbolic_arguments_and_guards(use_group: bool, guards: tuple[str, ...]) -> None:
    graph = sized(use_group, guards)
    source = render_flow(graph, "sized")
    again = trace_source(source)
    assert again.hash == graph.hash
    assert ("group = q.shape[1]" in source) == (use_group or "group >= 2" in guards)
    assert again.guards == guards


def test_an_mla_graph_round_trips() -> None:
    builder = GraphBuilder("mla", Geometry.mla(16, 512, 64, 16))
    builder.declare("c", (1, builder.injected["latent"].cols))
    builder.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("latent")], "c")
    query = builder.add(Stage.INDEXER, "Mean", {"dim": 1}, [Ref.query()])
    builder.add(Stage.INDEXER, "topK", {}, [builder.add(Stage.INDEXER, "GeMM", {}, [query, Ref.field("c")])])
    graph = builder.finish()
    assert trace_source(render_flow(graph, "latent_flow")).hash == graph.hash


@pytest.mark.parametrize("name", ["", 'x"); import os', "a\nb", "ä", "x" * 101])
def test_names_that_are_not_words(name: str) -> None:
    with pytest.raises(GraphError, match="flow name"):
        render_flow(load_graph("block_sparse_attention"), name)


@pytest.mark.parametrize("name", ["1", "class", "a-b.c", "None", "vFlow"])
def test_odd_names_still_give_a_class(name: str) -> None:
    graph = load_graph("block_sparse_attention")
    assert trace_source(render_flow(graph, name)).hash == graph.hash


@pytest.mark.parametrize("name", ["mean", "Mean", "c_mean", "maximum", "ge_m_m", "topK", "context_base"])
def test_a_flow_may_be_called_like_an_op(name: str) -> None:
    graph = load_graph("gqa_quest_sparse_attention")
    assert trace_source(render_flow(graph, name)).hash == graph.hash
    centroid = load_graph("block_sparse_attention")
    assert trace_source(render_flow(centroid, name)).hash == centroid.hash
