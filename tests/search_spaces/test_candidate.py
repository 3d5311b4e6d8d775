from __future__ import annotations

import pytest

from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_graphs
from vortex.budget import DEFAULT_POLICY
from vortex.errors import PolicyError
from vortex.graph.geometry import Geometry

GRAPH = seed_graphs()["block_sparse_attention"]


def test_identity_is_graph_and_knobs() -> None:
    knobs = Knobs(block_size=16, topk_val=8)
    base = Candidate(GRAPH, knobs).hash
    assert Candidate(seed_graphs()["quick_start"], knobs).hash == base  # the same algorithm by another name
    assert Candidate(seed_graphs()["gqa_quest_sparse_attention"], knobs).hash != base
    assert len(base) == 64
    changes: list[dict[str, object]] = [
        {"block_size": 32},
        {"topk_val": 9},
        {"topk_ratio": 0.1},
        {"bos": 2},
        {"eos": 2},
        {"layers_skip": (0,)},
        {"policy": "return 7;"},
    ]
    hashes = {Candidate(GRAPH, knobs.with_(**change)).hash for change in changes}
    assert len(hashes | {base}) == len(changes) + 1


def test_spelling_does_not_count() -> None:
    def of(policy: str | None, **more: object) -> str:
        return Candidate(GRAPH, Knobs(policy=policy, **more)).hash  # type: ignore[arg-type]

    assert of(DEFAULT_POLICY) == of(None) == of("  \n")
    assert of("int a = topk_val; return a + 1;") == of("return (topk_val + 1);  // one more")
    assert of(None, layers_skip=(3, 1, 1)) == of(None, layers_skip=(1, 3))
    assert of(None, topk_ratio=0.1) == of(None, topk_ratio=0.10000000001)


def test_a_policy_outside_the_subset_has_no_hash() -> None:
    with pytest.raises(PolicyError):
        _ = Candidate(GRAPH, Knobs(policy="while (1) {} return 3;")).hash


def test_the_config_has_the_published_names() -> None:
    knobs = Knobs(
        block_size=32, topk_val=7, topk_ratio=0.25, bos=2, eos=3, layers_skip=(0, 3), policy="return 9;"
    )
    config = Candidate(GRAPH, knobs).config("mine", "flow.py")
    assert config.model_dump(exclude_defaults=True) == {
        "module_path": "flow.py",
        "module_name": "mine",
        "block_size": 32,
        "topk_val": 7,
        "topk_ratio": 0.25,
        "block_reserved_bos": 2,
        "block_reserved_eos": 3,
        "layers_skip": (0, 3),
        "schedule_policy": "return 9;",
    }


def test_serves_knows_the_geometry() -> None:
    from vortex.graph.build import GraphBuilder
    from vortex.graph.model import Ref, Stage

    build = GraphBuilder("gqa", Geometry(16, 64, 4))
    build.declare("c", (build.injected["k"].rows // 16, build.injected["k"].cols))
    build.add(Stage.CACHE, "MeanInterleave", {"dim": 1, "k": 16}, [Ref.field("k")], "c")
    mean = build.add(Stage.INDEXER, "Mean", {"dim": 1}, [Ref.query()])
    score = build.add(Stage.INDEXER, "GeMM", {}, [mean, Ref.field("c")])
    top = build.add(Stage.INDEXER, "Max", {"dim": 1}, [score])
    build.add(Stage.INDEXER, "topK", {}, [top])
    graph = build.finish()
    geometry = Geometry(head_dim=64, group=4)
    assert Candidate(graph, Knobs(block_size=32)).serves(geometry)
    assert not Candidate(graph, Knobs(block_size=8)).serves(geometry)
