"""Fields of a layer: made, enlarged and cleared."""

from __future__ import annotations

import pytest
import torch

from vortex.graph import Geometry
from vortex.graph.build import GraphBuilder
from vortex.graph.model import Format, Ref, Stage
from vortex.runtime.fields import allocate, clear, field_shapes, saved_fields
from vortex.runtime.pool import KVPool
from vortex.targets.base import LayerCache

CPU = torch.device("cpu")


def layer() -> LayerCache:
    return LayerCache(3, KVPool.allocate(1, 8, torch.float32, CPU))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fields_follow_a_pool_that_grows(dtype: torch.dtype) -> None:
    found = layer()
    allocate(found, {"a": (1, 8), "b": (2, 4)}, {"r": (1, 3)}, 4, 6, dtype)
    shapes = {name: (tuple(x.shape), x.dtype) for name, x in (found.fields | found.requests).items()}
    assert shapes == {"a": ((4, 1, 8), dtype), "b": ((4, 2, 4), dtype), "r": ((6, 1, 3), torch.float32)}
    assert not any(x.any() for x in (*found.fields.values(), *found.requests.values()))
    kept, made = found.requests["r"].fill_(2), found.fields["a"]
    for field in found.fields.values():
        field.fill_(1)
    allocate(found, {"a": (1, 8), "b": (2, 4)}, {"r": (1, 3)}, 4, 6, torch.float32)
    assert found.fields["a"] is made
    allocate(found, {"a": (1, 8), "b": (2, 4)}, {"r": (1, 3)}, 7, 6, torch.float32)
    assert found.requests["r"] is kept
    for field in found.fields.values():
        assert field.dtype == dtype
        assert field[:, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_only_the_fields_named_are_cleared() -> None:
    found = layer()
    allocate(found, {"a": (1, 2), "b": (1, 2)}, {}, 5, 1, torch.float32)
    for field in found.fields.values():
        field.fill_(1)
    clear(found, ("a",), slice(0, 2))
    clear(found, ("a",), torch.tensor([4]))
    assert found.fields["a"][:, 0, 0].tolist() == [0, 0, 1, 1, 0]
    assert found.fields["b"].all()


def test_what_a_graph_keeps_and_saves() -> None:
    build = GraphBuilder("gqa", Geometry(16, 8, 2))
    for name, format in (("mean", Format.PAGED), ("past", Format.PAGED)):
        build.declare(name, (1, 1), format)
    past = build.add(Stage.INDEXER, "Load", {}, (Ref.field("past"),))
    build.add(Stage.INDEXER, "Save", {}, (past,), "past")
    build.add(Stage.INDEXER, "topK", {}, (build.add(Stage.INDEXER, "Load", {}, (Ref.field("mean"),)),))
    graph = build.finish().instantiate(Geometry(16, 8, 2))
    (saved,) = saved_fields(graph)
    assert saved in field_shapes(graph, Format.PAGED)
    assert len(field_shapes(graph, Format.PAGED)) == 2
    assert field_shapes(graph, Format.SLOTTED) == {}
