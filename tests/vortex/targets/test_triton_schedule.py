"""How flows are cut into kernels for the `triton` target."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import vortex.flow.algorithms  # noqa: F401
from tests.vortex.targets import cases
from vortex.config import Dtype
from vortex.flow import load_graph
from vortex.graph import FlowGraph, Format, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.targets.triton import TritonProgram, buffers
from vortex.targets.triton.tiles import parts_of, without_unused

GQA, MLA = Geometry(16, 128, 4), Geometry.mla(32, 512, 64, 20)


def program(name: str, dtype: Dtype = "bfloat16", tensor_cores: bool = False) -> TritonProgram:
    geometry = MLA if "mla" in name else GQA
    graph = load_graph(name, geometry=geometry)
    return TritonProgram(graph, geometry, dtype, use_tensor_core=tensor_cores)


def case(make: Callable[[], FlowGraph]) -> TritonProgram:
    return TritonProgram(make(), Geometry(16, cases.HEAD_DIM, cases.GROUP), "bfloat16")


@pytest.mark.parametrize(
    ("flow", "kernels"),
    [
        ("block_sparse_attention", ["prologue", "blocks_1"]),
        ("gqa_quest_sparse_attention", ["prologue", "blocks_1"]),
        ("rope_aware_block_sparse_mla", ["prologue", "blocks_1"]),
        ("running_avg_block_sparse", ["prologue", "blocks_1"]),
        ("gqa_block_sparse_attention", ["prologue", "blocks_1", "rows_2", "blocks_3"]),
        ("centered_block_sparse_attention", ["prologue", "blocks_1", "rows_2", "blocks_3"]),
    ],
)
def test_launches(flow: str, kernels: list[str]) -> None:
    made = program(flow)
    assert [kernel.name for kernel in made.module.kernels] == kernels
    assert made.launches == len(kernels)


def test_query_work_is_hoisted() -> None:
    """The mean of the query runs once a row: the kernel of the blocks reads it, and not the query."""
    prologue, blocks = program("block_sparse_attention").module.kernels
    assert "q" in prologue.parameters
    assert "q" not in blocks.parameters
    assert "values" in blocks.parameters


def test_statistics_share_kernels() -> None:
    """Five reductions over the blocks of a row and the mean of a Normalize take three passes, not six."""
    made = case(cases.over_blocks)
    stages = {stage.number: stage for stage in made.schedule.stages}
    assert sorted(stages) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert len(stages[1].statistics) == 5
    assert stages[1].statistics == stages[2].statistics


def test_fields_are_saved_after_their_last_reader() -> None:
    """`trading_places` reads every field that it saves: blocks in the pass that scores, rows after it."""
    made = case(cases.trading_places)
    saves = {index: stage for stage in made.schedule.stages for index in stage.saves}
    names = {made.indexer[index].node.output: stage.number for index, stage in saves.items()}
    slotted = set(made.request_fields)
    assert {number for name, number in names.items() if name not in slotted} == {1}
    assert {number for name, number in names.items() if name in slotted} == {2}
    tile = next(text for text in made.source.split("@triton.jit") if text.startswith("\ndef tile_1("))
    before, after = tile.split("tl.debug_barrier()")
    assert "tl.load(field_" in before.replace("((", "(")
    assert "tl.store(field_" not in before
    assert after.count("tl.store(field_") == 2


def test_large_maps_of_the_query_run_outside() -> None:
    """A product with a weight of [576 x 11520] is not the work of one program a row; the sum of the heads,
    where there is no weight, is."""
    made = TritonProgram(load_graph("learned_block_sparse_mla", geometry=MLA), MLA, "bfloat16")
    assert made.schedule.stages[0].outside == []
    f = cases.Flow()
    weights = [[[[0.5] * cases.HEAD_DIM] * cases.HEAD_DIM] * cases.GROUP]
    field = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    mapped = f.top(f("GeMM", f("LearnedQuery", f.q, Wk=weights), field))
    made = case(lambda: mapped)
    assert [made.indexer[index].op.name for index in made.schedule.stages[0].outside] == ["LearnedQuery"]
    assert made.schedule.stages[0].kept == []


def test_latents_are_not_padded() -> None:
    assert parts_of(576) == ((512, 512), (64, 64))
    assert parts_of(160) == ((128, 128), (32, 32))
    assert parts_of(128) == ((128, 128),)
    assert parts_of(48) == ((48, 64),)
    assert parts_of(1) == ((1, 1),)
    for cols in range(1, 2000):
        parts = parts_of(cols)
        assert sum(count for count, _ in parts) == cols
        assert sum(width for _, width in parts) < 2 * cols or cols == 1
        assert all(width & (width - 1) == 0 and count <= width for count, width in parts)
    assert "1024" not in program("rope_aware_block_sparse_mla").source


def test_tensor_cores_only_where_asked() -> None:
    for flow in ("gqa_quest_sparse_attention", "gqa_block_sparse_attention", "quest_mla"):
        assert "tl.dot" not in program(flow).source
        assert "tl.dot" in program(flow, tensor_cores=True).source


def test_bounds_are_products_except_in_float16() -> None:
    """0 times infinity is NaN, and float16 overflows."""
    assert "maximum(multiply" not in program("gqa_quest_sparse_attention").source
    assert "maximum(multiply" in program("gqa_quest_sparse_attention", "float16").source


def test_lines_that_nobody_reads_are_left_out() -> None:
    lines = ["    a = 1", "    b = a", "    c = b", "    store(b)"]
    assert without_unused(lines) == ["    a = 1", "    b = a", "    store(b)"]
    assert without_unused(["    a = 1", "    b = a"]) == []


def kernels_of(made: TritonProgram) -> dict[str, str]:
    return {kernel.name: kernel.text for kernel in made.module.kernels}


def test_every_kernel_of_a_step_waits_before_it_starts_the_next() -> None:
    """But for a prologue that reads the query alone."""
    for flow in ("gqa_quest_sparse_attention", "gqa_block_sparse_attention", "quest_mla"):
        for name, text in kernels_of(program(flow)).items():
            assert text.count("    follow(EARLY)\n") == 1, name
    source = program("block_sparse_attention").source
    assert source.index("gdc_wait()\n") < source.index("gdc_launch_dependents()\n")
    assert "def lead(" not in source


def test_a_prologue_of_queries_starts_the_scores_and_nothing_else_does() -> None:
    """They read what is older than the step; the summaries beside them, which need its tokens, wait."""
    kernels = kernels_of(program("rope_aware_block_sparse_mla"))
    prologue, scores = kernels["prologue"], kernels["blocks_1"]
    assert "    lead(EARLY)\n" in prologue
    assert "follow(EARLY)" not in prologue
    assert prologue.index("fetch(q") < prologue.index("lead(EARLY)") < prologue.index("tl.load(")
    assert "lead(EARLY)" not in scores
    assert scores.index("fetch_block(") < scores.index("follow(EARLY)") < scores.index("finish_block(")
    assert scores.index("tl.load((field_f0") < scores.rindex("follow(EARLY)") < scores.index("tile_1(")


def test_rows_of_wide_matrices_are_added_up_as_they_are_read() -> None:
    """No thread needs numbers of another one."""
    source = program("rope_aware_block_sparse_mla").source
    assert "tl.sum(" not in source.split("def prologue(")[1].split("@triton.jit")[0]
    assert "in tl.static_range(20):" in source
    assert "in tl.static_range(32):" in source
    assert "static_range" not in program("block_sparse_attention").source


def test_registers_are_limited_where_a_tile_of_blocks_fits() -> None:
    (latents,) = [k for k in program("rope_aware_block_sparse_mla").module.kernels if k.name == "blocks_1"]
    (centroid,) = [k for k in program("lserve_centroid_mla").module.kernels if k.name == "blocks_1"]
    assert buffers.register_limit(latents, 32, 8) == 64
    assert buffers.register_limit(latents, 64, 8) is None
    assert buffers.register_limit(centroid, 32, 8) is None
    for head_dim, limit in (128, 64), (256, None):
        at = Geometry(16, head_dim, 4)
        flow = "running_avg_block_sparse"
        saving = TritonProgram(load_graph(flow, geometry=at), at, "bfloat16").module.kernels[-1]
        assert buffers.register_limit(saving, 4096 // head_dim, 4) == limit


def test_blocks_are_read_before_the_prologue_is_done_unless_they_are_saved() -> None:
    before, after = kernels_of(program("running_avg_block_sparse"))["blocks_1"].split("follow(EARLY)")
    assert "tl.load((field_f0 " in before
    assert "field_f1" not in before.split("):\n")[1]
    assert "values" not in before.split("):\n")[1]
    assert "tile_1(" in after


def test_what_the_plan_left_is_read_after_waiting_where_no_prologue_is_before() -> None:
    (text,) = kernels_of(case(cases.keys_themselves)).values()
    assert text.index("follow(EARLY)") < text.index("tl.load(")


def test_wide_summaries_are_made_beside_the_scores() -> None:
    """A block of 32 latents takes the prologue longer than everything else that it does."""
    latents, keys = (
        program(f"{name}block_sparse_{of}") for name, of in (("rope_aware_", "mla"), ("", "attention"))
    )
    assert "finish_block" in kernels_of(latents)["blocks_1"]
    assert "finish_block" not in kernels_of(latents)["prologue"]
    assert "finish_block" in kernels_of(keys)["prologue"]


def test_summaries_that_need_scratch_memory_are_made_after_waiting() -> None:
    """It is shared by all kernels, and the one before may still use it."""
    build, size = GraphBuilder("mla", MLA), {"lead": -1, "cols": 288}
    build.declare("c", (1, 288), Format.PAGED)
    mean = build.add(Stage.CACHE, "Mean", {"dim": 1}, (Ref.field("latent"),))
    build.add(
        Stage.CACHE,
        "Mean",
        {"dim": 1},
        (build.add(Stage.CACHE, "Reshape", size | {"rows": 2}, (mean,)),),
        "c",
    )
    query = build.add(Stage.INDEXER, "Reshape", size | {"rows": 40}, (Ref.query(),))
    query = build.add(Stage.INDEXER, "Mean", {"dim": 1}, (query,))
    build.add(Stage.INDEXER, "topK", {}, (build.add(Stage.INDEXER, "GeMM", {}, (query, Ref.field("c"))),))
    made = TritonProgram(build.finish(), MLA, "bfloat16")
    text = kernels_of(made)["prologue"]
    assert made.module.kernels[0].scratch
    assert text.index("follow(EARLY)") < text.index("finish_block(")
    assert "finish_block" not in kernels_of(made)["blocks_1"]


def test_both_parts_of_a_bound_are_exact() -> None:
    """max(q, 0) and q - max(q, 0), whichever operand comes first."""
    for flow in ("gqa_quest_sparse_attention", "quest_mla", "lserve_sparse_attention"):
        made = program(flow, tensor_cores=True)
        assert len(made.layout.narrow) == 2, flow
        assert "False, NARROW" not in made.source
