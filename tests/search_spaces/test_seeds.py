from __future__ import annotations

from search_spaces.budget import row_bytes, share
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace
from search_spaces.seeds import BEST_KNOWN, seed_flows, seed_graphs, seed_limit, seeds
from tests.search_spaces.checks import GEOMETRIES
from vortex.flow import get, list_keys, trace_source
from vortex.graph.cost import row_cost
from vortex.graph.geometry import Geometry

SPACE = KnobSpace.for_model(layers=4, length=2048)
GEOMETRY = Geometry(head_dim=64, group=4)


def test_every_seed_file_traces_to_its_graph(kind: str) -> None:
    assert list(seed_flows(kind)) == list(seed_graphs(kind))
    for name, source in seed_flows(kind).items():
        graph = trace_source(source)
        assert graph.hash == seed_graphs(kind)[name].hash
        assert graph.kind == kind


def test_every_shipped_flow_is_a_seed_of_its_kind() -> None:
    shipped = {name for name in list_keys() if get(name).__module__.startswith("vortex.flow.algorithms")}
    graphs = {**seed_graphs("gqa"), **seed_graphs("mla")}
    assert set(graphs) == {*shipped, "quick_start"}
    assert len(graphs) == len(seed_graphs("gqa")) + len(seed_graphs("mla")) >= 22


def test_seeds_are_distinct_and_lie_in_the_space(kind: str) -> None:
    found = seeds(SPACE, 2048, kind)
    assert {seed.candidate.graph.hash for seed in found} == {
        graph.hash for graph in seed_graphs(kind).values()
    }
    assert len({seed.candidate.hash for seed in found}) == len({seed.name for seed in found}) == len(found)
    sizes = GEOMETRIES[kind][0]
    for seed in found:
        assert not SPACE.problems(seed.candidate.knobs)
        assert seed.candidate.serves(sizes)
        assert not seed.candidate.serves(next(g for k in GEOMETRIES for g in GEOMETRIES[k] if k != kind))
        assert 0.05 < row_bytes(seed.candidate, sizes, 2048) / _dense(sizes) < 0.5


def test_a_small_search_starts_from_the_best_known(kind: str) -> None:
    assert [seed_limit(budget) for budget in (1, 6, 12, 50)] == [3, 3, 4, 16]
    three = seeds(SPACE, 2048, kind, seed_limit(6))
    assert [seed.name for seed in three] == [f"{name}-16x16" for name in BEST_KNOWN[kind]]
    more = seeds(SPACE, 2048, kind, seed_limit(50))
    assert more[:3] == three
    assert {seed.candidate.knobs.topk_val for seed in more} == {8, 16, 32}
    assert more == seeds(SPACE, 2048, kind)[:16]


def _dense(sizes: Geometry) -> float:
    return row_cost(None, sizes, 2048, 128).bytes


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


def test_shares_are_of_dense_attention() -> None:
    candidate = Candidate(seed_graphs()["block_sparse_attention"], Knobs(block_size=16, topk_val=8))
    assert share(candidate, GEOMETRY, 2048) == row_bytes(candidate, GEOMETRY, 2048) / dense(2048)
    skipping = Candidate(candidate.graph, candidate.knobs.with_(layers_skip=(0,)))
    assert share(skipping, GEOMETRY, 2048, layers=4) == 0.75 * share(candidate, GEOMETRY, 2048) + 0.25


def test_policies_count() -> None:
    graph = seed_graphs()["block_sparse_attention"]
    fixed = Candidate(graph, Knobs(topk_val=8))
    twice = Candidate(graph, Knobs(topk_val=8, policy="return 2 * (topk_val + 2);"))
    block = 16 * 2 * 64 * 2
    assert row_bytes(twice, GEOMETRY, 2048) - row_bytes(fixed, GEOMETRY, 2048) == 10 * block
