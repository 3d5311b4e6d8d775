"""Properties of random flows and mutations, over thousands of them."""

from __future__ import annotations

import random

import pytest

from search_spaces import mutate as moves
from search_spaces.expr import Apply, fields, places
from search_spaces.generate import random_graph
from search_spaces.grammar import MAX_FIELDS, MAX_OPS, grown, sensible, settled
from search_spaces.mutate import MOVES, mutate
from search_spaces.program import OutsideError, Program, from_graph, to_graph
from search_spaces.typed import is_score, same_type, type_of, typed
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Format, Stage, TensorType

GEOMETRIES = (Geometry(16, 64, 4), Geometry(32, 128, 8))


def check(graph: FlowGraph) -> None:
    """A valid graph by the reader that trusts nobody, small, canonical, and usable on real sizes."""
    again = FlowGraph.from_json(graph.to_json())
    assert again.hash == graph.hash
    assert graph.canonical() is graph or graph.canonical() == graph
    assert 1 <= len(graph.fields) <= MAX_FIELDS
    assert len(graph.cache) + len(graph.indexer) <= MAX_OPS + 1
    assert graph.selector.op == "topK"
    for geometry in GEOMETRIES:
        graph.instantiate(geometry)


def test_graphs_and_programs_are_the_same_thing(drawn: list[FlowGraph]) -> None:
    for graph in drawn:
        program = from_graph(graph)
        assert to_graph(program).hash == graph.hash
        assert to_graph(program, Geometry(64, 96, 3)).hash == graph.hash


def test_thousands_of_mutations_are_valid() -> None:
    rng = random.Random(11)
    pool = [random_graph(rng).graph for _ in range(40)]
    graph, seen = pool[0], set()
    for step in range(1000):
        found = mutate(graph, rng, rng.sample(pool, 3))
        assert found is not None
        assert found.graph.hash != graph.hash
        assert found.what
        if found.donor is not None:
            assert 0 <= found.donor < 3
        check(found.graph)
        seen.add(found.graph.hash)
        graph = found.graph if step % 4 else rng.choice(pool)
    assert len(seen) > 700


def test_random_graphs_are_valid_and_various() -> None:
    rng = random.Random(5)
    drawn = [random_graph(rng).graph for _ in range(400)]
    for graph in drawn:
        check(graph)
    assert len({graph.hash for graph in drawn}) > 250


def test_equal_seeds_give_equal_mutations(drawn: list[FlowGraph]) -> None:
    def run() -> list[tuple[str, str]]:
        rng = random.Random(3)
        made = [mutate(graph, rng, drawn[:3]) for graph in drawn[:40]]
        return [(m.graph.hash, m.what) for m in made if m is not None]

    assert run() == run()


@pytest.mark.parametrize("move", [move for move, _ in MOVES], ids=lambda move: move.__name__)
def test_every_move_works(move: moves.Move, drawn: list[FlowGraph]) -> None:
    rng = random.Random(2)
    scores = [from_graph(graph).score for graph in drawn[:30]]
    done = 0
    for score in scores * 3:
        edit = move(score, rng, scores[:4])
        final = settled(edit.score, rng) if edit is not None else None
        if edit is not None and final is not None and final != score and sensible(final):
            assert edit.what
            assert is_score(type_of(final))
            done += 1
    assert done >= 5


def test_few_mutations_reach_known_improvements(drawn: list[FlowGraph]) -> None:
    """From the centroid flow, one step reaches each idiom that is known to help."""
    wanted = {"midrange", "heads", "softmax", "radius", "sub-blocks"}
    start = drawn[0]
    rng, reached = random.Random(0), set()
    for _ in range(700):
        found = mutate(start, rng)
        assert found is not None
        score = from_graph(found.graph).score
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
    assert reached == wanted


def test_grown_expressions_have_the_wanted_type() -> None:
    rng = random.Random(4)
    from search_spaces import motifs

    for wanted, stage in (
        (type_of(motifs.mean(rng), Stage.CACHE), Stage.CACHE),
        (type_of(motifs.radius(rng), Stage.CACHE), Stage.CACHE),
        (type_of(motifs.Q), Stage.INDEXER),
    ):
        grown_ones = [grown(wanted, stage, rng) for _ in range(60)]
        kept = [expr for expr in grown_ones if expr is not None]
        assert len(kept) > 20
        assert all(same_type(type_of(expr, stage), wanted) for expr in kept)
        assert len(set(kept)) > 5


def test_no_field_is_declared_and_not_used(drawn: list[FlowGraph]) -> None:
    for graph in drawn:
        program = from_graph(graph)
        read = {place.expr for place in places(program.score)}
        assert len(fields(program.score)) == len(graph.fields)
        assert all(field in read for field in fields(program.score))


def test_senseless_scores_are_refused() -> None:
    from search_spaces import motifs
    from search_spaces.typed import op

    rng = random.Random(0)
    raw = settled(op(Stage.INDEXER, "GeMM", motifs.Q, motifs.K), rng)
    assert raw is not None
    assert typed(raw)
    assert not sensible(raw)
    deaf = settled(op(Stage.INDEXER, "Load", motifs.Stored(motifs.radius(rng))), rng)
    assert deaf is not None
    assert not sensible(deaf)
    assert not typed(Apply("GeMM", (), (motifs.Q,)))
    assert settled(motifs.Q, rng) is None


def test_mla_is_outside() -> None:
    from vortex.graph.build import GraphBuilder
    from vortex.graph.model import Ref

    build = GraphBuilder("mla", Geometry.mla(16, 512, 64, 4))
    build.declare("c", (1, 576))
    build.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("latent")], "c")
    mean = build.add(Stage.INDEXER, "Mean", {"dim": 1}, [Ref.query()])
    score = build.add(Stage.INDEXER, "GeMM", {}, [mean, Ref.field("c")])
    build.add(Stage.INDEXER, "topK", {}, [score])
    graph = build.finish()
    with pytest.raises(OutsideError, match="gqa"):
        from_graph(graph)
    assert mutate(graph, random.Random(0)) is None


def test_types_are_symbolic() -> None:
    wide = TensorType(Format.PAGED, *(type_of(from_score()).rows,) * 2)
    assert not same_type(wide, type_of(from_score()))


def from_score() -> Apply:
    from search_spaces import motifs

    score = motifs.quest_score(random.Random(0))
    assert isinstance(score, Apply)
    return score


def test_a_program_is_its_graph() -> None:
    rng = random.Random(0)
    for _ in range(50):
        program = from_graph(random_graph(rng).graph)
        assert isinstance(program, Program)
        assert to_graph(program) == to_graph(from_graph(to_graph(program)))
