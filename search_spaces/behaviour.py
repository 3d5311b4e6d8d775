"""What a graph does, as far as selection can tell: the order in which it ranks the blocks of some made-up
rows.

Two graphs with the same order select the same blocks whatever they are called: measuring the second
teaches nothing about accuracy. A graph that ranks nothing (constant or NaN scores) need not be measured
at all.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from vortex.dims import Dim
from vortex.errors import VortexError
from vortex.graph.geometry import Geometry
from vortex.graph.model import Attr, FlowGraph, Node, Ref, RefKind, Stage
from vortex.ops import Args, find_op

if TYPE_CHECKING:
    import torch

ROWS, BLOCKS = 3, 24
SIZES = Geometry(block_size=16, head_dim=24, group=4)
"""Small enough that torch stays on one thread: the proposer runs beside busy workers."""


@lru_cache(maxsize=4096)
def behaviour(graph: FlowGraph) -> str | None:
    """A digest of how the graph ranks the blocks of a few random rows, None where it ranks nothing.

    Equal digests of different graphs mean the same selection on every row tried. Raises GuardError for a
    graph that does not serve block size 16.
    """
    import torch

    with torch.inference_mode():
        scores = _scores(graph.instantiate(SIZES))
        order = scores.argsort(dim=1, descending=True, stable=True)
    told_apart = min(len(set(row)) for row in scores.tolist())
    if bool(scores.isnan().any()) or told_apart <= BLOCKS // 2:
        return None
    return hashlib.sha256(order.numpy().tobytes()).hexdigest()


def ranks_blocks(graph: FlowGraph) -> bool:
    """Whether the graph tells blocks apart at all."""
    try:
        return behaviour(graph) is not None
    except VortexError:
        return False


@cache
def _rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [rows, 1, group, head_dim], k and v [rows x blocks, block_size, head_dim] in float64, in which
    the order of terms of a sum decides no ranking: blocks with a drift of their own, and queries near one
    token each."""
    import torch

    random = torch.Generator().manual_seed(20_26)
    shape = (ROWS, BLOCKS, SIZES.block_size, SIZES.head_dim)
    k = torch.randn(shape, generator=random) + torch.randn(ROWS, BLOCKS, 1, SIZES.head_dim, generator=random)
    v = torch.randn(shape, generator=random)
    needles = k[:, 7, 3][:, None, None, :]
    q = needles * 0.5 + torch.randn(ROWS, 1, SIZES.group, SIZES.head_dim, generator=random)
    return q.double(), k.flatten(0, 1).double(), v.flatten(0, 1).double()


def _scores(graph: FlowGraph) -> torch.Tensor:
    """The selector's operand, [rows, blocks]."""
    import torch

    q, k, v = _rows()
    known: dict[str, torch.Tensor] = {"k": k, "v": v}
    everywhere = torch.ones(1, dtype=torch.bool)
    done: list[torch.Tensor] = []
    for node in graph.cache:
        inputs = tuple(done[ref.node] if ref.kind is RefKind.NODE else known[ref.name] for ref in node.inputs)
        done.append(_run(Stage.CACHE, node, inputs, everywhere))
        if node.output is not None:
            known[node.output] = done[-1]
    valid = torch.ones(ROWS, BLOCKS, dtype=torch.bool)
    fields = {name: value.view(ROWS, BLOCKS, *value.shape[1:]) for name, value in known.items()}
    results: list[torch.Tensor] = []

    def operand(ref: Ref) -> torch.Tensor:
        if ref.kind is RefKind.NODE:
            return results[ref.node]
        return q if ref.kind is RefKind.QUERY else fields[ref.name]

    for node in graph.indexer:
        if find_op(Stage.INDEXER, node.op).claims_output:
            return operand(node.inputs[0])[..., 0, 0].expand(ROWS, BLOCKS)
        results.append(_run(Stage.INDEXER, node, tuple(map(operand, node.inputs)), valid))
    raise AssertionError("a graph has a selector")


def _run(stage: Stage, node: Node, inputs: tuple[torch.Tensor, ...], valid: torch.Tensor) -> torch.Tensor:
    args = Args({name: _number(value) for name, value in node.attrs}, node.type)
    return find_op(stage, node.op).run(args, inputs, valid).double()


def _number(value: Attr) -> Attr:
    if isinstance(value, tuple):
        return tuple(_number(item) for item in value)
    return value.hint if isinstance(value, Dim) else value
