"""The hash names the algorithm: not its names, order, waste or spelling, and nothing less than the
algorithm."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vortex.graph.random_graphs import random_graph, scrambled
from vortex.errors import FlowTypeError
from vortex.flow import load_graph, trace_source
from vortex.graph import FlowGraph, Geometry, Node, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.canonical import tensor_keys
from vortex.graph.model import RefKind
from vortex.ops import find_op

seeds = st.integers(0, 2**32)


def rebuilt(graph: FlowGraph, changed: dict[tuple[Stage, int], Node]) -> FlowGraph:
    builder = GraphBuilder(graph.kind, graph.traced_at)
    for field in graph.fields:
        builder.declare(field.name, (field.rows, field.cols), field.format)
    for stage in Stage:
        for index, node in enumerate(graph.program(stage)):
            node = changed.get((stage, index), node)
            builder.add(stage, node.op, dict(node.attrs), node.inputs, node.output)
    return builder.finish(graph.guards)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_scrambling_keeps_the_hash(seed: int) -> None:
    rng = Random(seed)
    graph = random_graph(rng)
    other = scrambled(graph, rng)
    assert other.hash == graph.hash
    assert other.canonical().canonical() == other.canonical()
    assert FlowGraph.from_json(other.canonical().to_json()).hash == graph.hash


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_changing_an_effective_attribute_changes_the_hash(seed: int) -> None:
    rng = Random(seed)
    graph = random_graph(rng).canonical()
    sites = []
    for stage in Stage:
        for index, node in enumerate(graph.program(stage)):
            for param in find_op(stage, node.op).params:
                if (
                    not param.ignored
                    and isinstance(node.attr(param.name), float)
                    and param.name != "tolerate_ratio"
                ):
                    sites.append((stage, index, node, param.name))
    for stage, index, node, name in sites:
        value = node.attr(name)
        assert isinstance(value, float)
        attrs = tuple((n, value + 0.5 if n == name else v) for n, v in node.attrs)
        other = rebuilt(graph, {(stage, index): Node(node.op, attrs, node.inputs, node.type, node.output)})
        assert other.hash != graph.hash, (node, name)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_operand_order_counts_where_the_op_does_not_commute(seed: int) -> None:
    graph = random_graph(Random(seed)).canonical()
    for stage in Stage:
        for index, node in enumerate(graph.program(stage)):
            if (
                len(node.inputs) != 2
                or node.inputs[0] == node.inputs[1]
                or find_op(stage, node.op).swap is not None
            ):
                continue
            swapped = Node(node.op, node.attrs, node.inputs[::-1], node.type, node.output)
            try:
                other = rebuilt(graph, {(stage, index): swapped})
            except FlowTypeError:
                continue
            assert other.hash != graph.hash, node


def test_every_kind_of_op_occurs_in_random_graphs() -> None:
    """The property tests above are worth what the generator covers."""
    seen = {node.op for seed in range(400) for _, node in random_graph(Random(seed), ops=12).nodes()}
    missing = (
        {op.name for stage in Stage for op in [find_op(stage, n) for n in _names(stage)]} - seen - {"Fill"}
    )
    assert not missing


def _names(stage: Stage) -> list[str]:
    from vortex.ops import stage_ops

    return list(stage_ops(stage))


def test_the_hash_does_not_depend_on_the_traced_sizes() -> None:
    from vortex.flow import build_vflow, trace_flow

    for name in ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention"):
        hashes = {
            trace_flow(build_vflow(name), block_size=b, head_dim=d, group=g).hash
            for b, d, g in ((16, 128, 4), (32, 64, 2), (8, 256, 1))
        }
        assert hashes == {load_graph(name).hash}


def test_shipped_flows_are_different_algorithms() -> None:
    names = ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention")
    assert len({load_graph(name).hash for name in names}) == 3


def quest(product: str = "Multiply", bound: str = "Maximum") -> FlowGraph:
    builder = GraphBuilder()
    for name, op in (("a", "Max"), ("b", "Min")):
        builder.declare(name, (1, builder.injected["k"].cols))
        builder.add(Stage.CACHE, op, {"dim": 1}, [Ref.field("k")], name)
    high = builder.add(Stage.INDEXER, product, {}, [Ref.query(), Ref.field("a")])
    low = builder.add(Stage.INDEXER, product, {}, [Ref.query(), Ref.field("b")])
    both = builder.add(Stage.INDEXER, bound, {}, [high, low])
    total = builder.add(Stage.INDEXER, "Sum", {"dim": 2}, [both])
    builder.add(Stage.INDEXER, "topK", {}, [builder.add(Stage.INDEXER, "Max", {"dim": 1}, [total])])
    return builder.finish()


def test_a_graph_built_by_hand_is_the_shipped_flow() -> None:
    assert quest().hash == load_graph("gqa_quest_sparse_attention").hash
    assert quest(bound="Minimum").hash != quest().hash


def test_fields_with_equal_content_are_one_field() -> None:
    def centroid(copies: int) -> FlowGraph:
        builder = GraphBuilder()
        names = [f"c{at}" for at in range(copies)]
        for name in names:
            builder.declare(name, (1, builder.injected["k"].cols))
            builder.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("k")], name)
        scores = [builder.add(Stage.INDEXER, "GeMM", {}, [Ref.query(), Ref.field(name)]) for name in names]
        total = builder.add(Stage.INDEXER, "Add", {}, [scores[0], scores[-1]])
        best = builder.add(Stage.INDEXER, "Max", {"dim": 2}, [total])
        builder.add(Stage.INDEXER, "topK", {}, [best])
        return builder.finish()

    assert centroid(1).hash == centroid(2).hash == centroid(3).hash
    assert len(centroid(3).canonical().fields) == 1


def test_unwritten_fields_of_equal_dims_are_the_same_zeros() -> None:
    def flow(used: str) -> FlowGraph:
        builder = GraphBuilder()
        for name in ("a", "b"):
            builder.declare(name, (1, 1))
        score = builder.add(Stage.INDEXER, "Load", {}, [Ref.field(used)])
        builder.add(Stage.INDEXER, "topK", {}, [score])
        return builder.finish()

    assert flow("a").hash == flow("b").hash


def test_add_is_commutative_with_its_weights() -> None:
    def flow(alpha: float, beta: float, first: str, second: str) -> FlowGraph:
        builder = GraphBuilder()
        for name, op in (("mean", "Mean"), ("max", "Max")):
            builder.declare(name, (1, builder.injected["k"].cols))
            builder.add(Stage.CACHE, op, {"dim": 1}, [Ref.field("k")], name)
        refs = [Ref.field(first), Ref.field(second)]
        mixed = builder.add(Stage.INDEXER, "Add", {"alpha": alpha, "beta": beta}, refs)
        best = builder.add(Stage.INDEXER, "Max", {"dim": 2}, [mixed])
        builder.add(Stage.INDEXER, "topK", {}, [best])
        return builder.finish()

    assert flow(2.0, -1.0, "mean", "max").hash == flow(-1.0, 2.0, "max", "mean").hash
    assert flow(2.0, -1.0, "mean", "max").hash != flow(2.0, -1.0, "max", "mean").hash


def test_values_that_differ_in_operand_order_are_not_merged() -> None:
    builder = GraphBuilder()
    for name, op in (("mean", "Mean"), ("max", "Max")):
        builder.declare(name, (1, builder.injected["k"].cols))
        builder.add(Stage.CACHE, op, {"dim": 1}, [Ref.field("k")], name)
    mean, largest = Ref.field("mean"), Ref.field("max")
    above = builder.add(Stage.INDEXER, "WhereGreater", {}, [mean, largest])
    below = builder.add(Stage.INDEXER, "WhereGreater", {}, [largest, mean])
    mixed = builder.add(Stage.INDEXER, "Add", {"beta": 2.0}, [above, below])
    builder.add(Stage.INDEXER, "topK", {}, [builder.add(Stage.INDEXER, "Max", {"dim": 2}, [mixed])])
    kept = builder.finish().canonical()
    assert [node.op for node in kept.indexer] == ["WhereGreater", "WhereGreater", "Add", "Max", "topK"]
    assert kept.indexer[0].inputs == kept.indexer[1].inputs[::-1]


def test_guards_are_part_of_the_algorithm_and_trivial_ones_are_not() -> None:
    source = """
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import Mean, GeMM, topK
from vortex_torch.cache import Mean as CMean

@register("guarded")
class Guarded(vFlow):
    def __init__(self):
        super().__init__()
        self.mean, self.gemm, self.out, self.reduction = Mean(), GeMM(), topK(), CMean()

    def create_cache(self, block_size, head_dim):
        {check}
        return {{"c": (1, head_dim)}}

    def forward_cache(self, cache, loc, ctx):
        self.reduction(cache["k"], cache["c"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        self.out(self.gemm(self.mean(q, ctx=ctx), cache["c"], ctx=ctx), o, ctx=ctx)
"""
    plain = trace_source(source.format(check="pass"))
    assert trace_source(source.format(check="assert block_size >= 1 and head_dim > 0")).hash == plain.hash
    guarded = trace_source(source.format(check="assert block_size % 8 == 0"))
    assert guarded.guards == ("block_size%8 == 0",)
    assert guarded.hash != plain.hash
    assert guarded.instantiate(Geometry(32, 64, 2)).hash == guarded.hash


@pytest.mark.parametrize("field", ["fields", "cache", "indexer"])
def test_equality_is_of_content(field: str) -> None:
    graph = load_graph("gqa_quest_sparse_attention")
    again = FlowGraph.from_json(graph.to_json())
    assert again == graph
    assert hash(again) == hash(graph)
    assert getattr(again.canonical(), field) == getattr(graph.canonical(), field)
    assert graph != load_graph("block_sparse_attention")


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_tensors_keep_their_keys_in_the_canonical_form(seed: int) -> None:
    """There, every key is one of the graph's, and stands for the same op and type."""
    rng = Random(seed)
    graph = scrambled(random_graph(rng), rng)
    canonical = graph.canonical()
    keys = tensor_keys(graph)
    for stage, found in tensor_keys(canonical).items():
        alike = {key: ref for ref, key in keys[stage].items() if ref.kind is RefKind.NODE}
        for ref, key in found.items():
            if ref.kind is RefKind.NODE:
                assert canonical.type_of(stage, ref) == graph.type_of(stage, alike[key])
                assert canonical.program(stage)[ref.node].op == graph.program(stage)[alike[key].node].op
