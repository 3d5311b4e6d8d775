"""Properties of random flows and mutations, over thousands of them."""

from __future__ import annotations

import random

import pytest

from search_spaces import motifs
from search_spaces import mutate as moves
from search_spaces.behaviour import behaviour, ranks_blocks
from search_spaces.expr import Apply, Stored, fields, places
from search_spaces.generate import random_graph
from search_spaces.grammar import grown, sensible, settled
from search_spaces.mutate import MOVES, mutate
from search_spaces.program import OutsideError, from_graph, to_graph
from search_spaces.seeds import seed_graphs
from search_spaces.typed import TRACED, is_score, op, same_type, type_of, typed
from tests.search_spaces.checks import GEOMETRIES, check
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Stage, TensorType

SCALED = {"gqa": Geometry(64, 96, 3), "mla": Geometry.mla(64, 96, 16, 3)}


def test_graphs_and_programs_are_the_same_thing(drawn: list[FlowGraph], kind: str) -> None:
    """Seeds may spell the size of a field otherwise than the types say; their numbers are the same."""
    for graph in drawn:
        again = to_graph(from_graph(graph), SCALED[kind])
        assert to_graph(from_graph(again)).hash == again.hash
        if graph.hash != again.hash:
            assert graph in seed_graphs(kind).values()
            for geometry in (*GEOMETRIES[kind], *TRACED.values()):
                if geometry.kind == kind:
                    assert behaviour(again) == behaviour(graph)
                    assert [f.type.numel for f in again.instantiate(geometry).fields] == [
                        f.type.numel for f in graph.instantiate(geometry).fields
                    ]
    assert sum(to_graph(from_graph(graph)).hash != graph.hash for graph in drawn) <= 2


def test_thousands_of_mutations_are_valid(kind: str) -> None:
    rng = random.Random(11)
    pool = [random_graph(rng, kind).graph for _ in range(40)]
    graph, seen = pool[0], set()
    for step in range(700):
        found = mutate(graph, rng)
        assert found is not None
        assert found.graph.hash != graph.hash
        assert found.graph.kind == kind
        assert found.what
        check(found.graph)
        seen.add(found.graph.hash)
        graph = found.graph if step % 4 else rng.choice(pool)
    assert len(seen) > 500


def test_random_graphs_are_valid_and_various(kind: str) -> None:
    rng = random.Random(5)
    drawn = [random_graph(rng, kind).graph for _ in range(300)]
    for graph in drawn:
        check(graph)
    assert len({graph.hash for graph in drawn}) > 190


def test_equal_seeds_give_equal_mutations(drawn: list[FlowGraph]) -> None:
    def run() -> list[tuple[str, str]]:
        rng = random.Random(3)
        made = [mutate(graph, rng) for graph in drawn[:40]]
        return [(m.graph.hash, m.what) for m in made if m is not None]

    assert run() == run()


@pytest.mark.parametrize("move", [move for move, _ in MOVES], ids=lambda move: move.__name__)
def test_every_move_works(move: moves.Move, drawn: list[FlowGraph], kind: str) -> None:
    rng = random.Random(2)
    scores = [from_graph(graph).scores[0] for graph in drawn[:30]]
    done = 0
    for score in scores * 3:
        edit = move(score, rng)
        final = settled(edit.score, rng) if edit is not None else None
        if edit is not None and final is not None and final != score and sensible(final):
            assert edit.what
            assert is_score(type_of(final))
            done += 1
    assert done >= 5 or (kind, move) == ("gqa", moves.other_parts)  # the one move that needs a latent


def test_few_mutations_reach_known_improvements() -> None:
    """From the centroid flow, one step reaches each idiom that is known to help."""
    wanted = {"midrange", "heads", "softmax", "radius", "sub-blocks", "neighbours"}
    start = seed_graphs()["block_sparse_attention"]
    rng, reached = random.Random(0), set()
    for _ in range(700):
        found = mutate(start, rng)
        assert found is not None
        score = from_graph(found.graph).scores[0]
        text = score.key
        held = [field.key for field in fields(score)]
        if any("Max" in key and "Min" in key and "alpha=0.5,beta=0.5" in key for key in held):
            reached.add("midrange")
        if "GeMM(q," in text:
            reached.add("heads")
        if "Softmax" in text:
            reached.add("softmax")
        if any(str(type_of(field).cols) == "1" and "L2Norm" in field.key for field in fields(score)):
            reached.add("radius")
        if any("Interleave" in key for key in held):
            reached.add("sub-blocks")
        if "Conv1d" in text:
            reached.add("neighbours")
    assert reached == wanted


def test_the_parts_of_a_latent_can_be_told_apart() -> None:
    """From the flow over whole latents, one step reaches the published one that leaves position out."""
    start = seed_graphs("mla")["rope_aware_block_sparse_mla"]
    wanted = {behaviour(seed_graphs("mla")["rope_unaware_block_sparse_mla"])}
    rng = random.Random(0)
    reached = {
        behaviour(found.graph)
        for _ in range(300)
        if (found := mutate(start, rng)) and ranks_blocks(found.graph)
    }
    assert wanted <= reached


def test_grown_expressions_have_the_wanted_type(kind: str) -> None:
    rng, of = random.Random(4), motifs.LEAVES[kind]
    for wanted, stage in (
        (type_of(motifs.mean(rng, of), Stage.CACHE), Stage.CACHE),
        (type_of(motifs.radius(rng, of), Stage.CACHE), Stage.CACHE),
        (type_of(of.q), Stage.INDEXER),
    ):
        grown_ones = [grown(wanted, stage, rng, kind) for _ in range(60)]
        kept = [expr for expr in grown_ones if expr is not None]
        assert len(kept) > 20
        assert all(same_type(type_of(expr, stage), wanted) for expr in kept)
        assert len(set(kept)) > 5


def test_no_field_is_declared_and_not_used(drawn: list[FlowGraph]) -> None:
    for graph in drawn:
        root = from_graph(graph).root
        read = {place.expr for place in places(root)}
        assert len(fields(root)) == len(graph.fields)
        assert all(field in read for field in fields(root))


def test_senseless_scores_are_refused(kind: str) -> None:
    rng, of = random.Random(0), motifs.LEAVES[kind]
    raw = settled(op(Stage.INDEXER, "GeMM", of.q, of.k), rng)
    assert raw is not None
    assert typed(raw)
    assert not sensible(raw)
    deaf = settled(op(Stage.INDEXER, "Load", Stored(motifs.radius(rng, of))), rng)
    assert deaf is not None
    assert not sensible(deaf)
    assert not typed(Apply("GeMM", (), (of.q,)))
    assert settled(of.q, rng) is None


def test_parts_of_different_kinds_have_no_type() -> None:
    rng, gqa, mla = random.Random(0), *motifs.LEAVES.values()
    radius = op(Stage.INDEXER, "Load", Stored(motifs.radius(rng, gqa)))
    content = op(Stage.INDEXER, "Load", Stored(motifs.radius(rng, mla)))
    assert typed(op(Stage.INDEXER, "Add", radius, radius))
    assert not typed(op(Stage.INDEXER, "Add", radius, content))


def test_what_keeps_state_is_outside() -> None:
    graph = seed_graphs()["running_avg_block_sparse"]
    with pytest.raises(OutsideError, match="keeps state"):
        from_graph(graph)
    assert mutate(graph, random.Random(0)) is None


def test_types_are_symbolic() -> None:
    score = motifs.quest_score(random.Random(0), motifs.LEAVES["gqa"])
    wide = TensorType(Format.PAGED, *(type_of(score).rows,) * 2)
    assert not same_type(wide, type_of(score))
