from __future__ import annotations

from search_spaces.budget import matched, row_bytes
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace
from search_spaces.seeds import SHIPPED, seed_flows, seed_graphs, seeds
from vortex.flow import trace_source
from vortex.graph.geometry import Geometry

SPACE = KnobSpace.for_model(layers=4, length=2048)
GEOMETRY = Geometry(head_dim=64, group=4)


def test_every_seed_file_traces_to_its_graph() -> None:
    assert set(seed_flows()) == set(seed_graphs()) == {*SHIPPED, "quick_start"}
    for name, source in seed_flows().items():
        assert trace_source(source).hash == seed_graphs()[name].hash


def test_seeds_are_distinct_and_lie_in_the_space() -> None:
    found = seeds(SPACE, 2048)
    assert (
        len({seed.candidate.hash for seed in found}) == len({seed.name for seed in found}) == len(found) >= 6
    )
    for seed in found:
        assert not SPACE.problems(seed.candidate.knobs)
        assert seed.candidate.serves(GEOMETRY)
        assert 0.05 < row_bytes(seed.candidate, GEOMETRY, 2048) / dense(2048) < 0.5


def dense(length: int) -> float:
    return length * GEOMETRY.head_dim * 2 * 2.0


def test_bytes_are_those_of_the_parts() -> None:
    candidate = Candidate(seed_graphs()["block_sparse_attention"], Knobs(block_size=16, topk_val=8))
    vector, blocks = 64 * 2, 128
    summaries = (16 + 1) * vector / 16
    scored = (blocks - 2) * (vector + 2 * 2)
    attended = (8 + 2) * 16 * 2 * vector
    assert row_bytes(candidate, GEOMETRY, 2048) == summaries + scored + attended
    everything = Candidate(candidate.graph, candidate.knobs.with_(topk_val=126))
    assert row_bytes(everything, GEOMETRY, 2048) == dense(2048)


def test_matched_knobs_read_at_most_the_limit_and_nearly_all_of_it() -> None:
    quest = Candidate(seed_graphs()["gqa_quest_sparse_attention"], Knobs(block_size=16, topk_val=8))
    mean = Candidate(seed_graphs()["block_sparse_attention"], quest.knobs)
    limit = row_bytes(quest, GEOMETRY, 2048)
    found = matched(mean, limit, SPACE, GEOMETRY, 2048)
    assert found is not None
    assert found.knobs.topk_val > 8
    assert row_bytes(found, GEOMETRY, 2048) <= limit
    more = Candidate(found.graph, found.knobs.with_(topk_val=found.knobs.topk_val + 1))
    assert row_bytes(more, GEOMETRY, 2048) > limit
    assert matched(mean, 10.0, SPACE, GEOMETRY, 2048) is None


def test_policies_count() -> None:
    graph = seed_graphs()["block_sparse_attention"]
    fixed = Candidate(graph, Knobs(topk_val=8))
    twice = Candidate(graph, Knobs(topk_val=8, policy="return 2 * (topk_val + 2);"))
    block = 16 * 2 * 64 * 2
    assert row_bytes(twice, GEOMETRY, 2048) - row_bytes(fixed, GEOMETRY, 2048) == 10 * block
