"""What a graph does, as far as selection can tell: the order in which it would choose the blocks of some
made-up rows.

Two graphs with the same order select the same blocks whatever they are called: measuring the second
teaches nothing about accuracy. A graph that ranks nothing (constant or NaN scores) need not be measured
at all. Graphs with similar orders fare similarly more often than not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vortex.errors import VortexError
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph, Ref, RefKind

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from vortex.targets.compiled import CompiledGraph

SIZES = {
    "gqa": Geometry(block_size=16, head_dim=24, group=4),
    "mla": Geometry.mla(block_size=16, kv_lora_rank=16, qk_rope_head_dim=8, group=4),
}
"""Small ones, by kind of flow."""
ROWS, BLOCKS = 40, 24


@dataclass(frozen=True)
class Rows:
    """Made-up rows: q [rows, 1, group, features], k and v (or latent) [rows, blocks, block_size, features],
    and for each row the block that holds the token which two of the heads ask for. In float64, in which the
    order of the terms of a sum decides no ranking."""

    q: torch.Tensor
    stored: Mapping[str, torch.Tensor]
    needle: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        rows, blocks = next(iter(self.stored.values())).shape[:2]
        return int(rows), int(blocks)


@lru_cache(maxsize=4096)
def behaviour(graph: FlowGraph) -> str | None:
    """A digest of how the graph ranks the blocks of the made-up rows, None where it ranks nothing.

    Equal digests of different graphs mean the same selection on every row tried. Raises GuardError for a
    graph that serves neither the made-up sizes nor its own.
    """
    for one in _tried(graph)[1]:
        told_apart = min(len(set(row)) for row in one.tolist())
        if bool(one.isnan().any()) or told_apart <= one.shape[1] // 2:
            return None
    return hashlib.sha256(_order(graph).numpy().tobytes()).hexdigest()


def ranks_blocks(graph: FlowGraph) -> bool:
    """Whether the graph tells blocks apart at all."""
    try:
        return behaviour(graph) is not None
    except VortexError:
        return False


@lru_cache(maxsize=4096)
def needle_recall(graph: FlowGraph) -> float:
    """The share of made-up rows whose wanted block is among the best eighth; chance is 0.125.

    Random keys are no model's keys: this tells what is broken from what may work, not the good from the
    better.
    """
    needle = _tried(graph)[0].needle
    return float((_order(graph)[:, : BLOCKS // 8] == needle[:, None]).any(1).double().mean())


@lru_cache(maxsize=4096)
def ranking(graph: FlowGraph) -> NDArray[np.float64]:
    """The order in which the graph would choose the blocks of the made-up rows, as a vector of length 1: the
    product of two of them is the mean rank correlation of two graphs, in [-1, 1]."""
    centred = _order(graph).argsort(dim=1).double() - (BLOCKS - 1) / 2
    vector: NDArray[np.float64] = (centred / centred.norm()).flatten().numpy()
    return vector


@cache
def made_up(sizes: Geometry, rows: int, blocks: int = BLOCKS) -> Rows:
    """Blocks with a drift of their own, and a query of which two heads are near one token."""
    import torch

    random = torch.Generator().manual_seed(2026)
    size, dim = sizes.block_size, sizes.head_dim
    k = torch.randn(rows, blocks, size, dim, generator=random)
    k += torch.randn(rows, blocks, 1, dim, generator=random) + 0.5 * torch.randn(
        rows, 1, 1, dim, generator=random
    )
    v = torch.randn(rows, blocks, size, dim, generator=random)
    needle = torch.randint(0, blocks, (rows,), generator=random)
    token = k[torch.arange(rows), needle, torch.randint(0, size, (rows,), generator=random)]
    q = torch.randn(rows, 1, sizes.group, dim, generator=random)
    q[:, :, :2] += 0.4 * token[:, None, None]
    stored = {"latent": k} if sizes.kind == "mla" else {"k": k, "v": v}
    return Rows(q.double(), {name: value.double() for name, value in stored.items()}, needle)


def scores_of(graph: FlowGraph, rows: Rows) -> torch.Tensor:
    """What blocks are ranked by, [selections, rows, blocks], of a graph at the sizes of the rows, in the
    first step: what is saved from step to step is zero."""
    import torch

    from vortex.targets.compiled import CompiledGraph

    program = CompiledGraph(graph, graph.traced_at, "float32")
    with torch.inference_mode():
        return torch.stack(_scores(program, rows, _summaries(program, rows)))


def _summaries(program: CompiledGraph, rows: Rows) -> dict[str, torch.Tensor]:
    """What the indexer finds in every field: [rows, blocks, r, c], of a request field [rows, 1, r, c]."""
    import torch

    count, blocks = rows.shape
    fields = {name: value.flatten(0, 1) for name, value in rows.stored.items()}
    for name, shape in program.fields.items():
        fields[name] = torch.zeros((count * blocks, *shape), dtype=torch.float64)
    done: list[torch.Tensor] = []
    written = dict(fields)
    for step in program.cache:
        inputs = (
            done[ref.node] if ref.kind is RefKind.NODE else fields[ref.name] for ref in step.node.inputs
        )
        done.append(step.op.run(step.args, tuple(inputs), torch.ones(1, dtype=torch.bool)).double())
        if step.node.output is not None:
            written[step.node.output] = done[-1].expand_as(fields[step.node.output])
    held = {name: value.reshape(count, blocks, *value.shape[1:]) for name, value in written.items()}
    for name, shape in program.request_fields.items():
        held[name] = torch.zeros((count, 1, *shape), dtype=torch.float64)
    return held


def _scores(program: CompiledGraph, rows: Rows, held: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    import torch

    valid = torch.ones(rows.shape, dtype=torch.bool)
    done: dict[int, torch.Tensor] = {}

    def operand(ref: Ref) -> torch.Tensor:
        if ref.kind is RefKind.NODE:
            return done[ref.node]
        return rows.q if ref.kind is RefKind.QUERY else held[ref.name]

    for step in program.live:
        inputs = tuple(map(operand, step.node.inputs))
        done[step.index] = step.op.run(step.at_layer(0), inputs, valid).double()
    return [operand(pick.score)[..., 0, 0].expand(rows.shape) for pick in program.selections]


def turns(graph: FlowGraph, scores: torch.Tensor) -> torch.Tensor:
    """When each block is chosen as the budget grows, [rows, blocks], the smaller the sooner: its place by its
    score; in a union the sooner of its two places, each as a share of what that selection chooses."""
    import torch

    places = scores.nan_to_num(nan=-torch.inf).argsort(dim=2, descending=True, stable=True).argsort(dim=2)
    shares = [(place + 1) / (pick.k or 1) for place, pick in zip(places, graph.selections, strict=True)]
    return torch.stack(shares).amin(0)


@lru_cache(maxsize=1024)
def _tried(graph: FlowGraph) -> tuple[Rows, torch.Tensor]:
    """The made-up rows, and the graph's scores of their blocks."""
    at = _sized(graph)
    rows = made_up(at.traced_at, ROWS)
    return rows, scores_of(at, rows)


def _order(graph: FlowGraph) -> torch.Tensor:
    """The blocks of the made-up rows in the order of choice, [rows, blocks]."""
    return turns(graph, _tried(graph)[1]).argsort(dim=1, stable=True)


def _sized(graph: FlowGraph) -> FlowGraph:
    """At small sizes, or at those it was traced with where it has constants that fit no others."""
    try:
        return graph.instantiate(SIZES[graph.kind])
    except VortexError:
        return graph.instantiate(replace(graph.traced_at, block_size=16))
