"""The cost model against bytes that runs of the `reference` target read and write, to the byte."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

import vortex.flow.algorithms  # noqa: F401
from tests.vortex.graph.counting import CountingProgram
from tests.vortex.graph.random_graphs import random_graph
from vortex.config import VortexConfig
from vortex.errors import GraphError
from vortex.flow import get, list_keys, load_graph
from vortex.graph import FlowGraph, Geometry
from vortex.graph.build import GraphBuilder
from vortex.graph.cost import Cost, row_costs
from vortex.graph.model import Format, Ref, Stage
from vortex.runtime.attention import Workspace
from vortex.runtime.dtypes import itemsize
from vortex.runtime.plan import SparseRows, make_plan
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.table import BlockTable
from vortex.targets import LayerCache, get_target
from vortex.targets.reference import ReferenceProgram

HEADS = 2
GQA = [
    Geometry(block, dim, group)
    for block, dim, group in ((8, 16, 4), (16, 32, 1), (16, 8, 8), (32, 16, 2), (64, 8, 4), (128, 8, 3))
]
MLA = [Geometry.mla(16, 16, 8, 16), Geometry.mla(32, 8, 8, 4), Geometry.mla(64, 8, 4, 2)]
SHIPPED = [name for name in list_keys() if get(name).__module__.startswith("vortex.")]
CPU = torch.device("cpu")


class Decode:
    """A step of two requests, each with some blocks more than it may read, and random tokens and queries."""

    def __init__(self, geometry: Geometry, rng: Random) -> None:
        torch.manual_seed(rng.randrange(2**31))
        self.geometry, size = geometry, geometry.block_size
        self.config = VortexConfig(
            topk_val=rng.randint(1, 3),
            block_size=size,
            block_reserved_bos=rng.randint(1, 2),
            block_reserved_eos=rng.randint(1, 2),
            dtype=rng.choice(("bfloat16", "float32", "fp8_e4m3")),
        )
        self.lengths = np.array([size * rng.randint(7, 9) + rng.randint(1, size) for _ in range(2)])
        counts = np.repeat(self.lengths // PAGE + 1, HEADS)
        pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
        self.pool = KVPool.allocate(
            int(counts.sum()), geometry.head_dim, torch.float32, CPU, geometry.kv_lora_rank
        )
        for stored in self.pool.stored:
            stored.normal_()
        self.plan = make_plan(self.lengths, size, self.config, None)
        self.rows = SparseRows(self.plan, HEADS, size, self.config, CPU)
        self.table = BlockTable(pages, size, CPU)
        self.q = torch.randn(len(self.rows), geometry.group, geometry.head_dim)
        done = np.repeat(self.lengths // size, HEADS)
        self.finished = torch.cat([ids[:count] for ids, count in zip(self.table.ids, done, strict=True)])

    def layer(self, program: ReferenceProgram) -> LayerCache:
        torch.manual_seed(0)
        blocks = self.pool.pages * PAGE // self.geometry.block_size
        fields = {name: torch.zeros(blocks, *shape) for name, shape in program.fields.items()}
        rows = {name: torch.randn(len(self.rows), *shape) for name, shape in program.request_fields.items()}
        return LayerCache(1, self.pool, fields, rows)

    def cost(self, graph: FlowGraph, kv_itemsize: int) -> Cost:
        """Of all rows of one layer."""
        sizes = kv_itemsize, itemsize(self.config.dtype)
        costs = row_costs(graph, self.geometry, *sizes, sharing=len(self.rows))
        rows = [
            costs.row(int(length), int(chosen), self.rows.bos, self.rows.eos)
            for length, chosen in zip(self.plan.seq_len, self.plan.chosen, strict=True)
        ]
        return sum(rows, Cost()) * HEADS


def check(graph: FlowGraph, geometry: Geometry, rng: Random) -> None:
    """Runs two steps as separate kernels: bytes must be those of the model, results the reference's."""
    decode, kv_itemsize = Decode(geometry, rng), rng.choice((1, 2, 4))
    plain = ReferenceProgram(graph, geometry, decode.config.dtype)
    counting = CountingProgram(graph, geometry, decode.config.dtype, kv_itemsize)
    expected, layer = decode.layer(plain), decode.layer(plain)
    plain.summarize(expected, decode.finished)
    counting.summarize(layer, decode.finished)
    for _ in range(2):
        valid = decode.rows.valid
        wanted = plain.scores(decode.q, expected, decode.table, decode.rows)[:, valid]
        found = counting.scores(decode.q, layer, decode.table, decode.rows)[:, valid]
        torch.testing.assert_close(found, wanted, equal_nan=True)
    for held, stored in ((layer.fields, expected.fields), (layer.requests, expected.requests)):
        for name, value in stored.items():
            torch.testing.assert_close(held[name], value, equal_nan=True, rtol=1e-1, atol=1e-6)

    cost = decode.cost(graph, kv_itemsize)
    for way in ("read", "written"):
        for part in ("scores", "selection", "row_values"):
            assert counting.counted[part, way] == 2 * getattr(getattr(cost, part), f"bytes_{way}")
        a_step = len(decode.rows) / (geometry.block_size * len(decode.finished))
        summaries = getattr(cost.summaries, f"bytes_{way}")
        assert counting.counted["summaries", way] * a_step == pytest.approx(summaries, rel=1e-12)


@pytest.mark.parametrize("part", range(6))
def test_random_graphs(part: int) -> None:
    checked = 0
    for seed in range(part * 50, part * 50 + 50):
        rng = Random(seed)
        geometry = rng.choice(GQA + MLA)
        graph = random_graph(rng, geometry, kind="mla" if geometry.kv_lora_rank else "gqa")
        try:
            graph.instantiate(geometry)
        except GraphError:  # too large to be real
            continue
        check(graph, geometry, rng)
        checked += 1
    assert checked > 40


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_flows(name: str) -> None:
    graph = load_graph(name)
    geometry = Geometry.mla(32, 32, 16, 4) if graph.kind == "mla" else Geometry(32, 16, 4)
    check(graph, geometry, Random(0))


class Saving:
    """Shorthand for flows that save."""

    def __init__(self) -> None:
        self.build = GraphBuilder("gqa", GQA[0])
        self.build.declare("c", (1, self.build.injected["k"].cols))
        self.build.add(Stage.CACHE, "Mean", {"dim": 1}, [Ref.field("k")], "c")
        self.x = self("GeMM", self("Mean", Ref.query(), dim=1), Ref.field("c"))

    def __call__(self, op: str, *inputs: Ref, to: str | None = None, **attrs: object) -> Ref:
        return self.build.add(Stage.INDEXER, op, attrs, inputs, to)

    def check(self, score: Ref) -> None:
        self("topK", score)
        check(self.build.finish(), GQA[0], Random(0))


def test_two_fields_that_change_places() -> None:
    f = Saving()
    for name in "ab":
        f.build.declare(name, (1, 1))
    a, b = (f("Load", Ref.field(name)) for name in "ab")
    f("Save", b, to="a")
    f("Save", f("Add", a, f.x), to="b")
    f.check(f("Add", f("Add", f.x, a, beta=2.0), b, beta=-3.0))


def test_a_field_is_read_before_it_is_written_whatever_the_level() -> None:
    f = Saving()
    f.build.declare("past", (1, 1))
    past = f("Load", Ref.field("past"))
    f("Save", f.x, to="past")
    share = f("Softmax", f("Add", past, f.x), scale=0.1)
    f.check(f("Add", f("Multiply", share, past), f("Softmax", past)))


def test_a_request_field_is_read_by_blocks_before_it_is_written() -> None:
    f = Saving()
    f.build.declare("last", (1, 1), Format.SLOTTED)
    f("Save", f("Mean", f("Mean", Ref.query(), dim=1), dim=2), to="last")
    score = f("Multiply", f.x, Ref.field("last"))
    f.check(f("Add", score, f("Mean", score, dim=0)))


class Touched(TorchFunctionMode):
    """Marks the elements of a pool that indexing reads."""

    def __init__(self, pool: KVPool) -> None:
        super().__init__()
        self.marks = {data.data_ptr(): torch.zeros(data.shape, dtype=torch.bool) for data in pool.stored}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.index_select:  # views read nothing
            data, _, ids = args
            marks = self.marks[data.untyped_storage().data_ptr()]
            marks.as_strided(data.shape, data.stride(), data.storage_offset())[ids] = True
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("geometry", GQA + MLA, ids=str)
def test_attention_reads_the_chosen_blocks_and_the_last_one_in_part(geometry: Geometry) -> None:
    graph = load_graph("quest_mla" if geometry.kv_lora_rank else "block_sparse_attention")
    for seed in range(5):
        decode = Decode(geometry, Random(seed))
        target, rows = get_target("reference"), decode.rows
        picked = target.select(torch.rand(len(rows), rows.blocks), rows, rows.planned)
        listed = rows.place(picked)
        blocks = decode.table.ids.gather(1, listed.positions)
        with Touched(decode.pool) as touched:
            target.attend(decode.q, decode.pool, blocks, listed, geometry.block_size, 0.1, Workspace())
        used = torch.zeros(decode.pool.pages * PAGE, dtype=torch.bool)
        for row, ids in enumerate(decode.table.ids):
            slots = (ids[:, None] * geometry.block_size + torch.arange(geometry.block_size)).flatten()
            used[slots[: decode.lengths[row // HEADS]]] = True
        read = sum(int(marks[used].sum()) for marks in touched.marks.values())
        attention = decode.cost(graph, 2).attention
        assert (attention.bytes_read, attention.bytes_written) == (read * 2, 0)
