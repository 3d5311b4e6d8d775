"""Dense decode attention as fast as this machine does it: the baseline that a speed ratio is worth having
against.

Query heads of a group are the rows of one matrix, so that K and V are read once; a baseline that repeats
the heads reads them `group` times and flatters every sparse algorithm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from evaluators.measure.kv import Cache
from vortex.engine.hf.geometry import ModelShape
from vortex.runtime.pool import PAGE

DenseStep = Callable[[np.ndarray], None]
"""Attends once in every layer at these sequence lengths `[batch]`."""


def _bmm_kernel(cache: Cache, shape: ModelShape) -> DenseStep:
    """Query heads of a group as the rows of a matrix, all buffers allocated before."""
    q, out, views = _dense_inputs(cache, shape)
    longest = int(cache.lengths.max()) + cache.room
    logits = torch.empty((shape.heads, shape.group, longest))

    def run(lengths: np.ndarray) -> None:
        for layer in range(shape.layers):
            for request, length in enumerate(lengths):
                k, v = views[layer][request]
                room = logits.view(-1)[: shape.heads * shape.group * length]
                weights = room.view(shape.heads, shape.group, length)
                torch.bmm(q[request], k[:, :length].transpose(1, 2), out=weights)
                torch.softmax(weights, -1, out=weights)
                torch.bmm(weights, v[:, :length], out=out[request])

    return run


def _sdpa_kernel(cache: Cache, shape: ModelShape) -> DenseStep:
    """torch's fused attention, with the query heads of a group as its query rows."""
    q, _, views = _dense_inputs(cache, shape)

    def run(lengths: np.ndarray) -> None:
        for layer in range(shape.layers):
            for request, length in enumerate(lengths):
                k, v = views[layer][request]
                keys, values = k[None, :, :length], v[None, :, :length]
                torch.nn.functional.scaled_dot_product_attention(q[request][None], keys, values)

    return run


def _dense_inputs(
    cache: Cache, shape: ModelShape
) -> tuple[torch.Tensor, torch.Tensor, list[list[tuple[torch.Tensor, torch.Tensor]]]]:
    """(q, out: [batch, heads, group, dim]; K and V of each layer and request as [heads, capacity, dim]
    views)."""
    batch = len(cache.lengths)
    q = torch.randn((batch, shape.heads, shape.group, shape.head_dim)) * shape.head_dim**-0.5
    starts = cache.pages.pages[:, 0].reshape(batch, shape.heads)
    capacity = int(cache.pages.counts[0]) * PAGE

    def view(data: torch.Tensor, request: int) -> torch.Tensor:
        first = int(starts[request, 0]) * PAGE
        return data[first : first + shape.heads * capacity].view(shape.heads, capacity, shape.head_dim)

    views = [[(view(p.k, r), view(p.v, r)) for r in range(batch)] for p in cache.pools]
    return q, torch.empty_like(q), views


DENSE_KERNELS: dict[str, Callable[[Cache, ModelShape], DenseStep]] = {
    "bmm, group as query rows": _bmm_kernel,
    "sdpa, group as query rows": _sdpa_kernel,
}
