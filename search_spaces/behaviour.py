"""What a graph does, as far as selection can tell: the order in which it ranks the blocks of some made-up
rows.

Two graphs with the same order select the same blocks whatever they are called: measuring the second
teaches nothing about accuracy. A graph that ranks nothing (constant or NaN scores) need not be measured
at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.errors import VortexError
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, FlowGraph, Node, Ref, RefKind, Stage
from vortex.ops import Args, find_op

if TYPE_CHECKING:
    import torch

SIZES = Geometry(block_size=16, head_dim=24, group=4)


@dataclass(frozen=True)
class Rows:
    """Made-up rows: q [rows, 1, group, head_dim], k and v [rows, blocks, block_size, head_dim], and for
    each row the block that holds the token which two of the heads ask for. In float64, in which the order
    of the terms of a sum decides no ranking."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    needle: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.k.shape[0]), int(self.k.shape[1])


@lru_cache(maxsize=4096)
def behaviour(graph: FlowGraph) -> str | None:
    """A digest of how the graph ranks the blocks of a few random rows, None where it ranks nothing.

    Equal digests of different graphs mean the same selection on every row tried. Raises GuardError for a
    graph that does not serve block size 16.
    """
    import torch

    with torch.inference_mode():
        scores = scores_of(graph.instantiate(SIZES), made_up(rows=3, blocks=24))
        order = scores.argsort(dim=1, descending=True, stable=True)
    told_apart = min(len(set(row)) for row in scores.tolist())
    if bool(scores.isnan().any()) or told_apart <= scores.shape[1] // 2:
        return None
    return hashlib.sha256(order.numpy().tobytes()).hexdigest()


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
    import torch

    rows = made_up(rows=40, blocks=24)
    with torch.inference_mode():
        scores = scores_of(graph.instantiate(SIZES), rows).nan_to_num(nan=-1e30)
    best = scores.topk(rows.shape[1] // 8, dim=1).indices
    return float((best == rows.needle[:, None]).any(1).double().mean())


@cache
def made_up(rows: int, blocks: int) -> Rows:
    """Blocks with a drift of their own, and a query of which two heads are near one token."""
    import torch

    random = torch.Generator().manual_seed(2026)
    size, dim = SIZES.block_size, SIZES.head_dim
    k = torch.randn(rows, blocks, size, dim, generator=random)
    k += torch.randn(rows, blocks, 1, dim, generator=random) + 0.5 * torch.randn(
        rows, 1, 1, dim, generator=random
    )
    v = torch.randn(rows, blocks, size, dim, generator=random)
    needle = torch.randint(0, blocks, (rows,), generator=random)
    token = k[torch.arange(rows), needle, torch.randint(0, size, (rows,), generator=random)]
    q = torch.randn(rows, 1, SIZES.group, dim, generator=random)
    q[:, :, :2] += 0.4 * token[:, None, None]
    return Rows(q.double(), k.double(), v.double(), needle)


def scores_of(graph: FlowGraph, rows: Rows) -> torch.Tensor:
    """The selector's operand, [rows, blocks], of a graph at `SIZES`."""
    import torch

    fields: dict[str, torch.Tensor] = {"k": rows.k.flatten(0, 1), "v": rows.v.flatten(0, 1)}
    everywhere = torch.ones(1, dtype=torch.bool)
    done: list[torch.Tensor] = []
    for node in graph.cache:
        inputs = tuple(
            done[ref.node] if ref.kind is RefKind.NODE else fields[ref.name] for ref in node.inputs
        )
        done.append(_run(Stage.CACHE, node, inputs, everywhere))
        if node.output is not None:
            fields[node.output] = done[-1]
    valid = torch.ones(rows.shape, dtype=torch.bool)
    held = {name: value.view(*rows.shape, *value.shape[1:]) for name, value in fields.items()}
    results: list[torch.Tensor] = []

    def operand(ref: Ref) -> torch.Tensor:
        if ref.kind is RefKind.NODE:
            return results[ref.node]
        return rows.q if ref.kind is RefKind.QUERY else held[ref.name]

    for node in graph.indexer:
        if find_op(Stage.INDEXER, node.op).claims_output:
            return operand(node.inputs[0])[..., 0, 0].expand(rows.shape)
        results.append(_run(Stage.INDEXER, node, tuple(map(operand, node.inputs)), valid))
    raise AssertionError("a graph has a selector")


def _run(stage: Stage, node: Node, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    args = Args({name: _number(value) for name, value in node.attrs}, node.type)
    return find_op(stage, node.op).run(args, inputs, valid).double()


def _number(value: Attr) -> Attr:
    if isinstance(value, tuple):
        return tuple(_number(item) for item in value)
    return value.hint if isinstance(value, Dim) else value
