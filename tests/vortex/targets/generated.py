"""Generated cases: random well-typed graphs on ragged batches, for every target to run.

A `Case` is a handful of plain values, and everything else follows from them: its repr is all it takes to run
it again. `cases()` draws them for hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal

import numpy as np
import torch
from hypothesis import strategies as st

import vortex.flow.algorithms  # noqa: F401
from tests.vortex.graph.random_graphs import plain_ops, random_graph
from tests.vortex.targets.cases import FLOWS, laid_out
from vortex.config import Dtype, VortexConfig
from vortex.errors import GraphError
from vortex.flow import get, list_keys, load_graph, vFlowMLA
from vortex.graph import FlowGraph, Geometry, Stage
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.runtime.pool import PAGE, KVPool, PageTable

Stored = Literal["float32", "bfloat16"]
Numbers = Literal["normal", "integers", "large"]

BLOCK_SIZES = (4, 8, 16, 32, 64, 128)
HEAD_DIMS = (32, 48, 64, 96, 128, 256)
SHIPPED = [name for name in list_keys() if get(name).__module__.startswith("vortex.")]
NAMED = (*SHIPPED, *FLOWS)
MLA_FLOWS = {name for name in SHIPPED if issubclass(get(name), vFlowMLA)}
LATENTS = ((16, 8), (32, 16), (64, 64), (128, 32), (512, 64))
INDEXER_OPS = tuple(op.name for op in plain_ops(Stage.INDEXER))
MOST_BLOCKS, MOST_ELEMENTS = 40, 2**16  # of a row; keys of a row, where its budget leaves the choice


@dataclass(frozen=True)
class Case:
    """A graph, and a batch that it decodes for some steps.

    `lengths` counts the tokens of each request in the first step. `latent`: kv_lora_rank and
    qk_rope_head_dim of an MLA model, in place of `head_dim`. `layer` is the model's layer that runs. `flow`
    ships with the package or stands in `cases`; None is a random graph of `ops` ops, `must` among them if it
    fits.
    """

    block_size: int = 16
    head_dim: int = 32
    latent: tuple[int, int] | None = None
    group: int = 4
    heads: int = 2
    lengths: tuple[int, ...] = (200,)
    scattered: bool = False
    bos: int = 1
    eos: int = 1
    topk_val: int = 3
    topk_ratio: float = 0.0
    dtype: Dtype = "bfloat16"
    stored: Stored = "float32"
    numbers: Numbers = "normal"
    layer: int = 0
    steps: int = 1
    ops: int = 8
    must: str | None = None
    seed: int = 0
    flow: str | None = None

    @property
    def geometry(self) -> Geometry:
        if self.latent is not None:
            return Geometry.mla(self.block_size, *self.latent, self.group)
        return Geometry(self.block_size, self.head_dim, self.group)

    @property
    def config(self) -> VortexConfig:
        return VortexConfig(
            block_size=self.block_size,
            block_reserved_bos=self.bos,
            block_reserved_eos=self.eos,
            topk_val=self.topk_val,
            topk_ratio=self.topk_ratio,
            dtype=self.dtype,
        )

    @cached_property
    def graph(self) -> FlowGraph:
        if self.flow is not None:
            made = FLOWS.get(self.flow)
            graph = made() if made else load_graph(self.flow, geometry=self.geometry)
            return graph.instantiate(self.geometry)
        rng = Random(self.seed)
        while True:
            graph = random_graph(rng, self.geometry, self.ops, self.geometry.kind, must=self.must)
            try:
                return graph.instantiate(self.geometry)
            except GraphError:  # too large to be real
                continue

    def batch(self, device: torch.device) -> Batch:
        """The tokens and queries, the same on every device."""
        random = np.random.default_rng(self.seed)
        counts = np.repeat(-(-(np.array(self.lengths) + self.steps - 1) // PAGE), self.heads)
        pages = laid_out(counts, self.seed if self.scattered else None)
        dim, rows = self.geometry.head_dim, len(counts)
        dtype = TORCH_DTYPES[self.stored]

        def drawn(*shape: int) -> torch.Tensor:
            numbers = random.standard_normal(shape, np.float32)
            if self.numbers == "integers":
                numbers = np.clip(np.rint(numbers), -2, 2)
            elif self.numbers == "large":
                numbers *= 30
            return torch.from_numpy(numbers).to(dtype).to(device)

        parts = 1 if self.latent else 2
        stored = [drawn(int(counts.sum()) * PAGE, dim) for _ in range(parts)]
        pool = KVPool(*stored, kv_lora_rank=self.latent[0] if self.latent else 0)
        return Batch(pool, pages, drawn(self.steps, rows, self.group, dim))


@dataclass(frozen=True)
class Batch:
    """The pool with the tokens of all steps, the pages of the rows, and the queries `[steps, rows, group,
    head_dim]`."""

    pool: KVPool
    pages: PageTable
    q: torch.Tensor


def drawn(rng: Random, flow: str | None = None) -> Case:
    """A random case, of a random graph or a flow."""
    mla = rng.random() < 0.25 if flow is None else flow in MLA_FLOWS
    latent, head_dim = rng.choice(LATENTS) if mla else None, rng.choice(HEAD_DIMS)
    sizes = (
        BLOCK_SIZES[2:] if flow is not None and "lserve" in flow else BLOCK_SIZES
    )  # in pieces of 16 tokens
    size, bos, eos, topk = rng.choice(sizes), rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 6)
    least = size * (bos + eos + topk) + 1  # the shortest row that is sparse
    most = max(least + 2 * size, min(MOST_BLOCKS * size, MOST_ELEMENTS // (sum(latent or ()) or head_dim)))
    edges = (1, size, size + 1, size * (bos + eos), least - size, least - 1, least, PAGE, PAGE + 1)

    def length() -> int:
        return rng.choice((rng.choice(edges), rng.randint(1, most), rng.randint(least, most)))

    lengths = [length() for _ in range(rng.randint(0, 3))]
    lengths += [rng.randint(least, most)] * rng.randint(1, 2)
    return Case(
        block_size=size,
        head_dim=head_dim,
        latent=latent,
        group=rng.randint(1, 16),
        heads=rng.randint(1, 2),
        lengths=tuple(rng.sample(lengths, len(lengths))),
        scattered=rng.random() < 0.5,
        bos=bos,
        eos=eos,
        topk_val=topk,
        topk_ratio=rng.choice((0.0, 0.0, 0.3)),
        dtype=rng.choice(("bfloat16", "float32", "float16", "fp8_e4m3", "fp8_e5m2")),
        stored=rng.choice(("float32", "bfloat16")),
        numbers=rng.choice(("normal", "normal", "integers", "large")),
        layer=rng.choice((0, 1, 5)),
        steps=rng.randint(1, 3),
        ops=rng.choice((4, 8, 12, 16)),
        must=rng.choice((None, *INDEXER_OPS)),
        seed=rng.getrandbits(32),
        flow=flow,
    )


def cases() -> st.SearchStrategy[Case]:
    """For hypothesis, which makes a case that fails as small as it can."""
    return st.builds(drawn, st.randoms(use_true_random=False), st.none() | st.sampled_from(NAMED))


def fixed_cases(count: int) -> Iterator[Case]:
    """The same cases every time: random graphs, and in every fifth case the next flow."""
    for number in range(count):
        yield drawn(Random(number), NAMED[number // 5 % len(NAMED)] if number % 5 == 0 else None)
