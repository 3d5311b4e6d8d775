"""Graph JSON comes from sandboxes: whatever it is, reading it gives a valid graph or a GraphError."""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.vortex.graph.random_graphs import random_graph
from vortex.errors import GraphError, GuardError
from vortex.flow import load_graph
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.advice import advice
from vortex.graph.build import GraphBuilder
from vortex.graph.cost import row_cost

QUEST = load_graph("gqa_quest_sparse_attention")
SITES = (16, 64, 4), (32, 128, 2)
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "q",
            "cache.k",
            "cache.max",
            "topK",
            "Kron",
            "Fill",
            "block_size**9",
            "head_dim//0",
            "1//(block_size-16)",
            "group",
        ]
    ),
    st.builds(
        lambda text: {"dim": text}, st.sampled_from(["group", "head_dim%0", "x", "(" * 199 + "1" + ")" * 199])
    ),
    st.lists(st.integers(-2, 600), max_size=4),
)


def accepted_or_refused(text: str | bytes) -> FlowGraph | None:
    """The graph, after it has been used in every way; None if it is refused. Anything else fails."""
    try:
        graph = FlowGraph.from_json(text)
    except GraphError:
        return None
    assert FlowGraph.from_json(graph.to_json()) == graph
    assert FlowGraph.from_json(graph.canonical().to_json()).hash == graph.hash
    assert graph.selector.op in ("topK", "approxTopK", "Union")
    assert all(isinstance(sentence, str) for sentence in advice(graph))
    for sizes in SITES:
        with suppress(GuardError, GraphError):
            graph.instantiate(Geometry(*sizes))
            assert row_cost(graph, Geometry(*sizes), 4096, 8).bytes >= 0
    return graph


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(path for key, child in children for path in paths(child, (*at, key)))]


def mutated(data: Any, rng: Random, junk: Any) -> Any:
    data = copy.deepcopy(data)
    *stem, last = rng.choice(paths(data)[1:])
    parent = data
    for key in stem:
        parent = parent[key]
    kind = rng.randrange(4)
    if kind == 0:
        parent[last] = junk
    elif kind == 1:
        del parent[last]
    elif kind == 2 and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(rng.choice(parent)))
    elif isinstance(parent, dict):
        parent[rng.choice(["extra", "op", "output", "line", "type"])] = junk
    else:
        parent[last] = junk
    return data


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.lists(JUNK, min_size=1, max_size=3))
def test_mutated_documents(seed: int, junk: list[Any]) -> None:
    rng = Random(seed)
    data = json.loads((QUEST if rng.random() < 0.5 else random_graph(rng)).to_json())
    for value in junk:
        data = mutated(data, rng, value)
    accepted_or_refused(json.dumps(data))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_mutated_bytes(seed: int) -> None:
    rng = Random(seed)
    data = bytearray(QUEST.to_json().encode())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    accepted_or_refused(bytes(data))


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        JUNK,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
@example({"version": 1})
def test_arbitrary_documents(document: Any) -> None:
    assert accepted_or_refused(json.dumps(document)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 50_000,
        "1" * 100_000,
        "NaN",
        b"\xff\xfe",
        "null",
        '{"version": 2}',
        '{"version": true}',
        '"' + "x" * 2**21 + '"',
        '{"version": "%s"}' % ("x" * 5000),
    ],
    ids=range(12),
)
def test_not_a_document(text: str | bytes) -> None:
    with pytest.raises(GraphError) as error:
        FlowGraph.from_json(text)
    assert len(str(error.value)) < 400


def document(**changes: Any) -> str:
    return json.dumps({**json.loads(QUEST.to_json()), **changes})


def test_forged_types_are_refused() -> None:
    data = json.loads(QUEST.to_json())
    data["indexer"][0]["type"] = ["RAGGED", 1, 1]
    with pytest.raises(GraphError, match="the type"):
        FlowGraph.from_json(json.dumps(data))


def test_types_may_be_left_out() -> None:
    data = json.loads(QUEST.to_json())
    for node in data["cache"] + data["indexer"]:
        del node["type"]
    assert FlowGraph.from_json(json.dumps(data)) == QUEST


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indexer": []}, "nothing claims o"),
        ({"fields": []}, "unknown cache field"),
        ({"fields": [{"name": "max", "rows": 10**9, "cols": "head_dim"}]}, "does not fit the field"),
        ({"fields": [{"name": "k", "rows": 1, "cols": 1}]}, "must not declare 'k' key"),
        ({"fields": [{"name": "a b", "rows": 1, "cols": 1}]}, "identifier"),
        ({"fields": [{"name": "x", "rows": "group", "cols": 1}]}, "depend on the query"),
        ({"fields": [{"name": "x", "rows": -1, "cols": 1}]}, "at least 1"),
        ({"guards": ["block_size == 99"]}, "does not hold"),
        ({"guards": ["__import__('os')"]}, "comparison"),
        ({"guards": ["x == 1"]}, "not a size expression"),
        ({"guards": ["1//0 == 1"]}, "."),
        ({"kind": "mla"}, "MLA|latent"),
        ({"traced_at": {"block_size": 0, "head_dim": 1, "group": 1}}, "traced_at"),
        ({"extra": 1}, "extra"),
    ],
)
def test_the_reason_is_given(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        FlowGraph.from_json(document(**changes))


def test_operands_must_come_first() -> None:
    data = json.loads(QUEST.to_json())
    data["indexer"][0]["inputs"][0] = 3
    with pytest.raises(GraphError, match="not an earlier op"):
        FlowGraph.from_json(json.dumps(data))


def test_huge_documents_are_refused_quickly() -> None:
    data = json.loads(QUEST.to_json())
    data["indexer"] = data["indexer"][:1] * 4000
    started = time.perf_counter()
    with pytest.raises(GraphError):
        FlowGraph.from_json(json.dumps(data))
    assert time.perf_counter() - started < 2.0


def test_lines_survive_but_do_not_count() -> None:
    data = json.loads(QUEST.to_json())
    assert all(node["line"] > 0 for node in data["indexer"])
    for node in data["indexer"]:
        node["line"] += 1
    moved = FlowGraph.from_json(json.dumps(data))
    assert moved.indexer[0].line == QUEST.indexer[0].line + 1  # type: ignore[operator]
    assert moved == QUEST


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_integers_beyond_all_floats_are_refused(number: int) -> None:
    builder = GraphBuilder()
    builder.declare("c", (1, 128))
    score = builder.add(Stage.INDEXER, "GeMM", {}, [Ref.field("c"), Ref.field("c")])
    scaled = builder.add(Stage.INDEXER, "Exp", {"alpha": 0.5}, [score])
    builder.add(Stage.INDEXER, "topK", {}, [builder.add(Stage.INDEXER, "Add_Mul", {}, [scaled])])
    text = builder.finish().to_json()
    with pytest.raises(GraphError, match="finite float32 number"):
        FlowGraph.from_json(text.replace('"alpha": 0.5', f'"alpha": {number}'))
