"""Parts of a graph's document that mutation rarely hits: constants, guards, sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vortex.errors import GraphError, GuardError
from vortex.flow import load_graph
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.graph.render import render_flow
from vortex.weights import MAX_INLINE, Weight

AT = Geometry(16, 128, 4)


def with_constant(weight: Weight) -> FlowGraph:
    """The score is the best of several learned products of the mean query, weighted by the centroid."""
    builder = GraphBuilder("gqa", AT)
    builder.declare("c", (1, builder.injected["k"].cols))
    builder.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("k")], "c")

    def add(op: str, *inputs: Ref, **attrs: object) -> Ref:
        return builder.add(Stage.INDEXER, op, attrs, inputs)

    mapped = add("GeMM", add("Mean", Ref.query(), dim=1), add("Parameter", value=weight))
    add("topK", add("Multiply", add("Max", mapped, dim=1), add("Max", Ref.field("c"), dim=2)))
    return builder.finish()


def document(graph: FlowGraph, **changes: Any) -> str:
    return json.dumps(json.loads(graph.to_json()) | changes)


SMALL = with_constant(Weight.of([[0.5] * 128] * 3))


def test_constants_travel_by_their_digest() -> None:
    again = FlowGraph.from_json(SMALL.to_json())
    assert again == SMALL
    assert [list(weight.numbers()) for weight in again.weights()] == [[0.5] * 384]
    assert with_constant(Weight.of([[0.25] * 128] * 3)).hash != SMALL.hash


def test_constants_that_are_not_there_or_not_theirs() -> None:
    (digest,) = json.loads(SMALL.to_json())["weights"]
    other = Weight.of([[0.25] * 128] * 3)
    for weights, message in (
        ({}, "has no weights"),
        ({digest: "@@@"}, "must be base64"),
        ({digest: Weight.of([[0.5]]).text}, "must be 3 x 128 float32 numbers"),
        ({digest: other.text}, "not those of their digest"),
    ):
        with pytest.raises(GraphError, match=message):
            FlowGraph.from_json(document(SMALL, weights=weights))


def test_constants_too_large_for_a_document_or_a_source() -> None:
    rows = MAX_INLINE // 128 + 1
    large = with_constant(Weight.of_bytes((rows, 128), bytes(4 * rows * 128)))
    assert large.hash != SMALL.hash
    with pytest.raises(GraphError, match=f"more than {MAX_INLINE} numbers"):
        large.to_json()
    with pytest.raises(GraphError, match=f"more than {MAX_INLINE} numbers"):
        render_flow(large, "large")


def test_guards_are_kept_and_must_hold() -> None:
    quest = load_graph("gqa_quest_sparse_attention")
    kept = FlowGraph.from_json(document(quest, guards=["block_size % 8 == 0", "head_dim >= 1"]))
    assert [text.replace(" ", "") for text in kept.guards] == ["block_size%8==0"]  # the other always holds
    with pytest.raises(GuardError, match="relies on"):
        kept.instantiate(Geometry(4, 128, 4))
    for guard, message in (
        ("block_size == 17", "does not hold at the geometry"),
        ("1 // (block_size - 16) == 1", "divides by zero"),
        ("size == 16", "size"),
    ):
        with pytest.raises(GraphError, match=message):
            FlowGraph.from_json(document(quest, guards=[guard]))


def test_sizes_that_cannot_be() -> None:
    quest = load_graph("quest_mla")
    traced = json.loads(quest.to_json())["traced_at"]
    with pytest.raises(GraphError, match="the head_dim of an MLA geometry"):
        FlowGraph.from_json(document(quest, traced_at=traced | {"head_dim": 7}))
