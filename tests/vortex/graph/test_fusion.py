"""Where graphs are cut into kernels. That the cuts compute the right scores is in test_cost_counted.py."""

from __future__ import annotations

from random import Random

import pytest

from tests.vortex.graph.random_graphs import random_graph
from vortex.errors import GraphError
from vortex.flow import load_graph
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.fusion import Kernel, Kind, cut
from vortex.targets.triton import TritonProgram

AT = Geometry(16, 128, 4)


def kinds(name: str) -> str:
    return " ".join(kernel.kind.name for kernel in cut(load_graph(name).instantiate(AT)).scoring)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("block_sparse_attention", "ROW BLOCK SELECT"),
        ("gqa_quest_sparse_attention", "BLOCK SELECT"),
        ("gqa_block_sparse_attention", "BLOCK ACROSS BLOCK SELECT"),
        ("centered_block_sparse_attention", "ROW BLOCK ACROSS BLOCK SELECT"),
        ("running_avg_block_sparse", "ROW BLOCK SELECT"),
        ("venergy_gated_centroid", "ROW BLOCK SELECT"),
    ],
)
def test_kernels_of_shipped_flows(name: str, expected: str) -> None:
    assert kinds(name) == expected


def test_kernels_say_what_they_read_and_leave() -> None:
    kernels = cut(load_graph("gqa_block_sparse_attention").instantiate(AT))
    logits, share, best, select = range(4)
    assert kernels.summary == Kernel(Kind.BLOCK, (0,), (Ref.field("k"),), fields=("f0",))
    assert kernels.scoring == (
        Kernel(Kind.BLOCK, (logits,), (Ref.query(), Ref.field("f0")), (logits,)),
        Kernel(Kind.ACROSS, (share,), (Ref.at(logits),), (share,)),
        Kernel(Kind.BLOCK, (best,), (Ref.at(share),), (best,)),
        Kernel(Kind.SELECT, (select,), (Ref.at(best),)),
    )


def test_a_union_is_one_selection() -> None:
    build = GraphBuilder("gqa", AT)
    build.declare("c", (1, 1))

    def add(op: str, *inputs: Ref, **attrs: object) -> Ref:
        return build.add(Stage.INDEXER, op, attrs, inputs)

    first = add("Load", Ref.field("c"))
    second = add("Softmax", add("Exp", first))
    add("Union", add("TopK", first, k=3), add("TopK", second, k=4))
    kernels = cut(build.finish().instantiate(AT)).scoring
    assert [kernel.kind for kernel in kernels] == [Kind.BLOCK, Kind.ACROSS, Kind.SELECT]
    assert len(kernels[-1].nodes) == 3
    assert len(kernels[0].results) == 2  # the loaded field, for the selection, and its exponential


@pytest.mark.parametrize("part", range(4))
def test_kernels_run_in_order_and_every_op_once(part: int) -> None:
    for seed in range(part * 50, part * 50 + 50):
        try:
            graph = random_graph(Random(seed), ops=16).instantiate(AT)
        except GraphError:  # too large to be real
            continue
        kernels = cut(graph)
        ready: set[int] = set()
        placed: list[int] = []
        for kernel in kernels.scoring:
            for ref in kernel.inputs:
                assert ref.node in ready or ref.node < 0 or graph.indexer[ref.node].op == "Parameter"
            assert len(kernel.nodes) == 1 or kernel.kind is not Kind.ACROSS
            placed += kernel.nodes
            ready |= set(kernel.results)
        assert len(placed) == len(set(placed))
        left = {graph.indexer[index].op for index in range(len(graph.indexer)) if index not in placed}
        assert left <= {"Load", "Parameter"}
        saved = [name for kernel in kernels.scoring for name in kernel.fields]
        assert sorted(saved) == sorted(node.output for node in graph.indexer if node.output is not None)


def passes(graph: FlowGraph, geometry: Geometry) -> tuple[int, int]:
    """How often the scored blocks of a row are gone through: by generated kernels, and by these ones."""
    generated = TritonProgram(graph, geometry, "bfloat16").schedule.stages
    kernels = cut(graph.instantiate(geometry)).scoring
    over_blocks = [kernel for kernel in kernels if kernel.kind in (Kind.BLOCK, Kind.ACROSS)]
    return sum(stage.has_kernel and not stage.of_rows for stage in generated), len(over_blocks)


def test_generated_kernels_go_through_the_blocks_no_more_often() -> None:
    """The price of a flow is an upper bound of what the triton target does."""
    assert passes(load_graph("gqa_quest_sparse_attention"), AT) == (1, 1)
    assert passes(load_graph("gqa_block_sparse_attention"), AT) == (2, 3)
    for seed in range(100):
        try:
            graph = random_graph(Random(seed), ops=16)
            generated, priced = passes(graph, graph.traced_at)
        except GraphError:  # too large to be real
            continue
        assert generated <= priced
