"""The rules that hold however a graph is made: by tracing, from JSON or by mutation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vortex.errors import FlowTypeError, GraphError, GuardError
from vortex.flow import load_graph
from vortex.graph import Geometry, Ref, Stage
from vortex.graph.build import MAX_FIELDS, GraphBuilder, symbols
from vortex.graph.limits import check_size
from vortex.graph.model import Format, Selection

AT = Geometry(16, 128, 4)
HEAD_DIM = symbols("gqa", AT)["head_dim"]
GROUP = symbols("gqa", AT)["group"]


def started() -> GraphBuilder:
    builder = GraphBuilder("gqa", AT)
    builder.declare("c", (1, HEAD_DIM))
    builder.declare("last", (1, 1), Format.SLOTTED)
    builder.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("k")], "c")
    return builder


def indexer(builder: GraphBuilder, op: str, *inputs: Ref, to: str | None = None, **attrs: object) -> Ref:
    return builder.add(Stage.INDEXER, op, attrs, inputs, to)


def scored(builder: GraphBuilder) -> Ref:
    return indexer(builder, "GeMM", indexer(builder, "Mean", Ref.query()), Ref.field("c"))


def after_the_end(builder: GraphBuilder) -> None:
    indexer(builder, "Exp", indexer(builder, "topK", scored(builder)))


def two_ends(builder: GraphBuilder) -> None:
    builder.add(Stage.INDEXER, "topK", {}, [scored(builder)], line=7)
    indexer(builder, "approxTopK", scored(builder))


REFUSALS: list[tuple[Callable[[GraphBuilder], object], str]] = [
    (lambda b: b.declare("no name", (1, 1)), "must be an identifier"),
    (lambda b: b.declare("k", (1, 1)), "create_cache must not declare 'k' key: the engine provides k, v"),
    (lambda b: b.declare("v", (1, 1), Format.SLOTTED), "create_request_cache must not declare 'v' key"),
    (lambda b: b.declare("c", (1, 1)), "'c' is declared twice"),
    (lambda b: [b.declare(f"f{i}", (1, 1)) for i in range(MAX_FIELDS)], f"at most {MAX_FIELDS} fields"),
    (lambda b: b.declare("x", (1, 1, 1)), r"two dims, \(rows, cols\), got \(1, 1, 1\)"),
    (lambda b: b.declare("x", 3), "two dims"),
    (lambda b: b.declare("x", (1, True)), "must be integers"),
    (lambda b: b.declare("x", (1, 2.0)), "must be integers"),
    (lambda b: b.declare("x", (0, 1)), "must be at least 1"),
    (lambda b: b.declare("x", (1, 2**31 + 1)), "larger than any real size"),
    (lambda b: b.declare("x", (1, GROUP * 2)), "depend on the query"),
    (lambda b: indexer(b, "Load", Ref.field("d")), "unknown cache field 'd'"),
    (lambda b: b.read(Stage.CACHE, "last"), "request field 'last' cannot be used in the cache stage"),
    (lambda b: b.add(Stage.CACHE, "Max", {}, [Ref.query()]), "the cache stage has no query"),
    (lambda b: b.add(Stage.CACHE, "Reshape", {"lead": -1, "rows": GROUP, "cols": 4}, [Ref.field("c")]),
     "depends on the query"),
    (lambda b: indexer(b, "Max", Ref.at(5)), "operand 5 is not an earlier op of the indexer program"),
    (after_the_end, "the output of the flow is not an operand"),
    (two_ends, "o is claimed twice, first by topK in line 7"),
    (lambda b: indexer(b, "Max", Ref.query(), to="c"), "ops of the indexer do not write fields"),
    (lambda b: b.add(Stage.CACHE, "Fill", {}, [], "k"), "'k' belongs to the engine"),
    (lambda b: b.add(Stage.CACHE, "Max", {}, [Ref.field("k")], "c"), "already written by Mean"),
    (lambda b: b.finish(), "nothing claims o"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_refused(wrong: Callable[[GraphBuilder], object], message: str) -> None:
    with pytest.raises(FlowTypeError, match=message):
        wrong(started())


def test_the_kind_of_a_flow_must_be_known_and_have_its_sizes() -> None:
    with pytest.raises(FlowTypeError, match="unknown kind of flow 'gqb'"):
        GraphBuilder("gqb")
    with pytest.raises(FlowTypeError, match="an MLA flow needs kv_lora_rank and qk_rope_head_dim"):
        GraphBuilder("mla", AT)
    with pytest.raises(GuardError, match="the flow needs kv_lora_rank and qk_rope_head_dim"):
        load_graph("quest_mla").instantiate(AT)


def test_both_programs_may_write_a_field_and_read_what_they_wrote() -> None:
    builder = started()
    assert builder.read(Stage.INDEXER, "c") == Ref.field("c")
    assert builder.read(Stage.CACHE, "c") == Ref.at(0)
    saved = indexer(builder, "Save", indexer(builder, "Load", Ref.field("c")), to="c")
    assert builder.read(Stage.INDEXER, "c") == saved
    indexer(builder, "topK", scored(builder))
    graph = builder.finish()
    assert graph.field("c").format is Format.PAGED
    assert graph.selections == (Selection(Ref.at(3), None),)
    with pytest.raises(KeyError, match="nothing"):
        graph.field("nothing")


def test_attributes_of_several_numbers_serve_other_sizes() -> None:
    builder = started()
    product = indexer(builder, "Kron", Ref.query(), Ref.field("c"), dim=(1,))
    best = indexer(builder, "Max", indexer(builder, "Max", product, dim=1), dim=2)
    indexer(builder, "topK", best)
    small = builder.finish().instantiate(Geometry(8, 32, 2))
    assert small.indexer[0].type.text() == "[S, group, head_dim]"
    assert small.indexer[0].type.numel == 64


def test_limits_count_elements_and_ops() -> None:
    builder = started()
    builder.declare("wide", (2, HEAD_DIM))
    product = indexer(builder, "Kron", Ref.query(), Ref.field("wide"))
    best = indexer(builder, "Max", indexer(builder, "Max", product, dim=1), dim=2)
    indexer(builder, "topK", best)
    with pytest.raises(
        GraphError, match=r"Kron of the indexer program has 131072 elements a block, more than"
    ):
        check_size(builder.finish())
    graph = load_graph("block_sparse_attention")
    with pytest.raises(GraphError, match="the graph has 603 ops, more than 512"):
        check_size(replace(graph, cache=graph.cache * 600))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 128, 4), "block_size must be between 1 and 65536, got 0"),
        ((16, 65537, 4), "head_dim must be between"),
        ((16, 128, -1), "group must be between"),
        ((16, 128, 4, -1, 0), "must not be negative"),
        ((16, 128, 4, 64, 32), "the head_dim of an MLA geometry is kv_lora_rank"),
    ],
)
def test_geometries_that_cannot_be(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(*sizes)
