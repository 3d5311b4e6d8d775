"""The tolerance itself: what a target that rounds every op may give is inside."""

from __future__ import annotations

import pytest
import torch

from tests.vortex.targets.tolerance import OFF, SAMPLES, Range, Unsteady
from vortex.config import Dtype
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder
from vortex.runtime.pool import KVPool
from vortex.targets import LayerCache

AT = Geometry(4, 32, 1)
BLOCKS = 4096


def summary(op: str, attrs: dict[str, object]) -> FlowGraph:
    """The least of `op` of the keys of a block."""
    builder = GraphBuilder("gqa", AT)
    builder.declare("least", (1, 32))
    mapped = builder.add(Stage.CACHE, op, attrs, [Ref.field("k")])
    builder.add(Stage.CACHE, "Min", {"dim": 1}, [mapped], "least")
    score = builder.add(Stage.INDEXER, "GeMM", {}, [Ref.query(), Ref.field("least")])
    builder.add(Stage.INDEXER, "topK", {}, [score])
    return builder.finish()


@pytest.mark.parametrize(
    ("op", "attrs"), [("Exp", {"alpha": 2.0, "beta": -1.0}), ("Silu", {"alpha": 2.0, "beta": -1.0})]
)
def test_changes_that_cancel_leave_room(op: str, attrs: dict[str, object]) -> None:
    """Where an op passes a change of its operand on, it and a change of the result may cancel: never in all
    runs, so that the neighbouring float32 numbers are always allowed."""
    graph = summary(op, attrs)
    keys = 1.0 + torch.rand(BLOCKS * 4, 32, generator=torch.Generator().manual_seed(1)) / 8
    keys *= -1.0
    dtype: Dtype = "float32"

    def fields(off: float, seed: int) -> torch.Tensor:
        program = Unsteady(graph, AT, off, seed)
        layer = LayerCache(0, KVPool(keys, keys), {"f0": torch.zeros(BLOCKS, 1, 32)})
        program.summarize(layer, slice(0, BLOCKS))
        return layer.fields["f0"]

    exact = fields(0.0, 0)
    allowed = Range.of(exact, [fields(OFF[dtype], seed) for seed in range(SAMPLES)]).rounded(dtype)
    for way in (-torch.inf, torch.inf):
        neighbour = torch.nextafter(exact, torch.full_like(exact, way))
        assert not allowed.outside(neighbour).any()
    assert (allowed.high - exact).max() < 2**-13 * exact.abs().max()
