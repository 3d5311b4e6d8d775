"""Fields of a layer: what a flow keeps of every block, and of every row of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from vortex.graph.model import FlowGraph, Format, Stage

if TYPE_CHECKING:
    from vortex.targets.base import LayerCache

Shapes = Mapping[str, tuple[int, int]]


def field_shapes(graph: FlowGraph, format: Format) -> dict[str, tuple[int, int]]:
    """Inner shapes of the fields of a format, of an instantiated graph."""
    fields = [field for field in graph.fields if field.format is format]
    return {field.name: (field.rows.hint, field.cols.hint) for field in fields}


def saved_fields(graph: FlowGraph) -> tuple[str, ...]:
    """Fields of blocks that the indexer saves: a block that is used again starts them from zeros."""
    written = {node.output for node in graph.program(Stage.INDEXER)}
    return tuple(f.name for f in graph.fields if f.format is Format.PAGED and f.name in written)


def allocate(
    layer: LayerCache, fields: Shapes, request_fields: Shapes, blocks: int, rows: int, dtype: torch.dtype
) -> None:
    """Make the fields of a layer that are missing, of `blocks` blocks as `dtype` and of `rows` rows in
    float32, and enlarge those of a pool that has grown. What is new is zero."""
    device = layer.pool.k.device
    for name, shape in fields.items():
        old = layer.fields.get(name)
        assert old is None or old.shape[1:] == shape, f"field {name} belongs to another flow"
        if old is None or len(old) < blocks:
            new = layer.fields[name] = _zeros((blocks, *shape), dtype if old is None else old.dtype, device)
            if old is not None:
                new[: len(old)] = old
    for name, shape in request_fields.items():
        if name not in layer.requests:
            layer.requests[name] = torch.zeros((rows, *shape), device=device)


def clear(layer: LayerCache, names: Iterable[str], blocks: slice | torch.Tensor) -> None:
    """Zeros in these fields of blocks."""
    for name in names:
        layer.fields[name][blocks] = 0


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type == "cpu" and dtype == torch.float32:  # numpy leaves untouched pages unallocated
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, dtype=dtype, device=device)
