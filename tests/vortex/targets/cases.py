"""Generated cases that every target runs: flows x ragged rows x block sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vortex.config import VortexConfig
from vortex.graph import FlowGraph, Format, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder, symbols
from vortex.runtime.plan import SparseRows, make_plan
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.table import BlockTable

GROUP, HEAD_DIM, HEADS = 4, 16, 2


class Flow:
    """Shorthand over GraphBuilder."""

    def __init__(self) -> None:
        geometry = Geometry(16, HEAD_DIM, GROUP)
        self.build = GraphBuilder("gqa", geometry)
        size = symbols("gqa", geometry)
        self.block_size, self.head_dim = size["block_size"], size["head_dim"]
        self.q = Ref.query()
        self.k, self.v = Ref.field("k"), Ref.field("v")

    def cache(self, op: str, *inputs: Ref, to: str | None = None, **attrs: object) -> Ref:
        return self.build.add(Stage.CACHE, op, attrs, inputs, to)

    def __call__(self, op: str, *inputs: Ref, to: str | None = None, **attrs: object) -> Ref:
        return self.build.add(Stage.INDEXER, op, attrs, inputs, to)

    def field(self, name: str, rows: int, cols: int, per: Format = Format.PAGED) -> Ref:
        self.build.declare(name, (rows, cols), per)
        return Ref.field(name)

    def top(self, score: Ref) -> FlowGraph:
        self("topK", score)
        return self.build.finish()

    def union(self, *picks: Ref) -> FlowGraph:
        self("Union", *picks)
        return self.build.finish()


def centroid() -> FlowGraph:
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    return f.top(f("GeMM", f("Mean", f.q, dim=1), c))


def softmax_over_blocks() -> FlowGraph:
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    return f.top(f("Max", f("Softmax", f("GeMM", f.q, c), dim=0, scale=0.09), dim=2))


def quest() -> FlowGraph:
    f = Flow()
    high, low = f.field("high", 1, f.head_dim), f.field("low", 1, f.head_dim)
    f.cache("Max", f.k, to="high", dim=1)
    f.cache("Min", f.k, to="low", dim=1)
    bound = f("Maximum", f("Multiply", f.q, high), f("Multiply", f.q, low))
    return f.top(f("Max", f("Sum", bound, dim=2), dim=1))


def value_energy() -> FlowGraph:
    f = Flow()
    c, energy = f.field("c", 1, f.head_dim), f.field("energy", 1, 1)
    f.cache("Mean", f.k, to="c", dim=1)
    f.cache("Mean", f.cache("L2Norm", f.v, dim=2), to="energy", dim=1)
    return f.top(f("Multiply", f("GeMM", f("Mean", f.q, dim=1), c), energy))


def halves() -> FlowGraph:
    """Two centroids a block, scores of all heads, centred over the blocks of the row."""
    f = Flow()
    c = f.field("c", 2, f.head_dim)
    f.cache("MeanInterleave", f.k, to="c", dim=1, k=f.block_size // 2)
    best = f("Max", f("Max", f("GeMM", f.q, c), dim=1), dim=2)
    centred = f("Add", best, f("Mean", best, dim=0), alpha=1.0, beta=-1.0)
    return f.top(f("Normalize", centred, dim=0))


def keys_themselves() -> FlowGraph:
    """Reads K in the indexer: the true largest logit."""
    f = Flow()
    return f.top(f("Max", f("Max", f("GeMM", f.q, f.k), dim=1), dim=2))


def products() -> FlowGraph:
    """Of two operands without blocks, of two with blocks, and of both orders of one with and one without."""
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    heads = f("Softmax", f("GeMM", f.q, c), dim=0, scale=-0.1)
    alike = f("GeMM", f("Mean", f.q, dim=1), f.q)
    tokens = f("Mean", f("Max", f("GeMM", f.q, f.k), dim=1), dim=2)
    tokens = f("Add", tokens, f("Mean", f("GeMM", c, f.k), dim=1))
    return f.top(f("Add", f("GeMM", heads, f("Transpose", alike)), tokens))


def kronecker() -> FlowGraph:
    """Products over both axes and over each of them, with a mark where their order matters."""
    f = Flow()
    two, four = f.field("two", 2, 1), f.field("four", 4, 1)
    means = f.cache("Mean", f.k, dim=2)
    f.cache("MeanInterleave", means, to="two", dim=1, k=f.block_size // 2)
    f.cache("MeanInterleave", means, to="four", dim=1, k=f.block_size // 4)
    heads = f("Max", f.q, dim=2)
    products = [
        f("Kron", f("GeMM", heads, two), f("GeMM", heads, four)),
        f("Kron", f("Transpose", two), f("Transpose", four), dim=2),
        f("Kron", f("Multiply", two, f("Max", heads, dim=1)), four, dim=1),
    ]
    parts = []
    for axis, product in zip((1, 2, 1), products, strict=True):
        marks = f("MaskSlice", product, start=1, end=2, dim=axis, alpha=1.0, beta=0.25)
        parts.append(f("Sum", f("Sum", f("Multiply", product, marks), dim=1), dim=2))
    return f.top(f("Add", f("Add", parts[0], parts[1]), parts[2]))


def thresholds() -> FlowGraph:
    """Comparisons of few different numbers, each seen in the score."""
    f = Flow()
    high, low = f.field("high", 1, f.head_dim), f.field("low", 1, f.head_dim)
    f.cache("Max", f.k, to="high", dim=1)
    f.cache("Min", f.v, to="low", dim=1)
    one, two = (
        f("Add_Mul", f("WhereGreater", f("Mean", f.q, dim=1), field), alpha=0.0, beta=1e-30)
        for field in (high, low)
    )  # -1 or 0
    parts = [f("Relu", one, alpha=0.0, beta=-3.0), f("Relu", two, alpha=-1.0, beta=7.0)]
    for name in ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"):
        parts.append(f("Add_Mul", f(f"Where{name}", one, two), alpha=0.0, beta=1e-30))
    total = parts[0]
    for power, part in enumerate(parts[1:]):
        total = f("Add", total, part, alpha=1.0, beta=2.0**power)
    return f.top(f("Sum", total, dim=2))


def over_blocks() -> FlowGraph:
    """Every op over the blocks of a row, some of them one after another."""
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    score = f("GeMM", f("Mean", f.q, dim=1), c)
    parts = [f(op, score, dim=0) for op in ("Max", "Min", "Mean", "Sum", "L2Norm")]
    scaled = f("Normalize", f("Conv1d", score, weight=[[[1.0]], [[-0.5]], [[0.25]]]), dim=0)
    for part in parts:
        scaled = f("Add", scaled, f("Multiply", score, part), alpha=1.0, beta=0.1)
    return f.top(f("Add", f("Softmax", scaled, dim=0, scale=-0.5), f("Mean", scaled, dim=0)))


def ties() -> FlowGraph:
    """Scores of a few distinct values: everything hangs on the rule for ties."""
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    score = f("GeMM", f("Mean", f.q, dim=1), c)
    return f.top(f("WhereGreater", score, f("Multiply", score, f("MaskSlice", score, start=0, end=0, dim=1))))


def not_a_number() -> FlowGraph:
    """The logarithm of a negative score is NaN, which ranks after every number."""
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    return f.top(f("Log", f("GeMM", f("Mean", f.q, dim=1), c)))


def trading_places() -> FlowGraph:
    """Each step saves in one field what the other one held, per block and per row; scores are of the old."""
    f = Flow()
    c = f.field("c", 1, f.head_dim)
    f.cache("Mean", f.k, to="c", dim=1)
    f.field("a", 1, 1), f.field("b", 1, 1)
    f.field("r", 1, 1, Format.SLOTTED), f.field("s", 1, 1, Format.SLOTTED)
    old = {name: f("Load", Ref.field(name)) for name in "abrs"}
    now = f("GeMM", f("Mean", f.q, dim=1), c)
    f("Save", old["b"], to="a")
    f("Save", f("Add", now, old["a"], alpha=1.0, beta=0.5), to="b")
    f("Save", old["s"], to="r")
    f("Save", f("Add", old["r"], f("Max", now, dim=0)), to="s")
    mixed = f("Add", f("Multiply", old["a"], old["r"]), old["b"])
    return f.union(f("TopK", mixed, k=3), f("TopK", old["b"], k=50))


def early_reads() -> FlowGraph:
    """The cache program reads fields that it is going to write: zeros, in whatever order it writes them."""
    f = Flow()
    a, b, c, d = (f.field(name, 1, 2) for name in "abcd")
    f.cache("Reshape", a, to="b", lead=-1, rows=1, cols=2)
    f.cache("Fill", to="a", alpha=1.5)
    f.cache("Reshape", d, to="c", lead=-1, rows=1, cols=2)
    f.cache("Fill", to="d", alpha=2.0)
    total = f("Add", f("Add", a, b, alpha=1.0, beta=2.0), f("Add", c, d, alpha=4.0, beta=1.0))
    return f.top(f("Sum", total, dim=2))


FLOWS: dict[str, Callable[[], FlowGraph]] = {
    flow.__name__: flow
    for flow in (
        centroid,
        softmax_over_blocks,
        quest,
        value_energy,
        halves,
        keys_themselves,
        products,
        kronecker,
        thresholds,
        over_blocks,
        ties,
        not_a_number,
        trading_places,
        early_reads,
    )
}


@dataclass(frozen=True)
class Rows:
    """Ragged rows in a pool, some of them scattered over it."""

    pool: KVPool
    pages: PageTable
    lengths: np.ndarray
    q: torch.Tensor

    @property
    def requests(self) -> int:
        return len(self.lengths)


def laid_out(counts: np.ndarray, shuffled: int | None) -> PageTable:
    """Rows of `counts` pages, one after another; with a seed, the pages are `shuffled` over the pool."""
    pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
    if shuffled is None:
        return pages
    order = np.random.default_rng(shuffled).permutation(int(counts.sum()))
    owned = np.arange(pages.pages.shape[1]) < counts[:, None]
    return PageTable(np.where(owned, order[pages.pages], 0), pages.counts)


def ragged_rows(seed: int, scattered: bool, lengths: tuple[int, ...] = (700, 33, 300, 511, 512, 150)) -> Rows:
    """Random K, V and q; `scattered` shuffles the pages of every row over the pool."""
    generator = torch.Generator().manual_seed(seed)
    counts = np.repeat([length // PAGE + 1 for length in lengths], HEADS)
    pages = laid_out(counts, seed if scattered else None)
    k, v = (torch.randn(int(counts.sum()) * PAGE, HEAD_DIM, generator=generator) for _ in range(2))
    q = torch.randn(len(lengths) * HEADS, GROUP, HEAD_DIM, generator=generator)
    return Rows(KVPool(k, v), pages, np.array(lengths), q)


def planned(rows: Rows, config: VortexConfig) -> tuple[SparseRows, BlockTable, torch.Tensor]:
    """The sparse rows of a plan, their block table and their queries."""
    block_size = config.block_size or 16
    plan = make_plan(rows.lengths, block_size, config, None)
    sparse = SparseRows(plan, HEADS, block_size, config, rows.q.device)
    ids = (sparse.requests[:, None] * HEADS + np.arange(HEADS)).ravel()
    return (
        sparse,
        BlockTable(rows.pages.select(ids), block_size, rows.q.device),
        rows.q[torch.from_numpy(ids)],
    )
