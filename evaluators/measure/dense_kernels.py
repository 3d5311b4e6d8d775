"""Dense decode attention as fast as this machine does it: the baseline that a speed ratio is worth having
against.

Query heads of a group are the rows of one matrix, so that K and V are read once; a baseline that repeats
the heads reads them `group` times and flatters every sparse algorithm. MLA attends over the latents with the
absorbed query, all heads being one group: a baseline that expands K and V from them would flatter as much.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from evaluators.measure.kv import Cache
from vortex.engine.hf.geometry import ModelShape
from vortex.runtime.pool import PAGE, KVPool


class DenseKernel(ABC):
    """Attends once in every layer; everything of the size of the cache is allocated before.

    q: [batch, heads, group, head_dim]; out: [batch, heads, group, value_dim], the last layer's. kv: K and V
    of each layer and request as [heads, capacity, dim] views of the pools.
    """

    name: str

    def __init__(self, cache: Cache, shape: ModelShape) -> None:
        batch = len(cache.lengths)
        generator = torch.Generator().manual_seed(0)
        self.q = torch.randn((batch, shape.heads, shape.group, shape.head_dim), generator=generator)
        self.out = torch.empty((batch, shape.heads, shape.group, cache.pools[0].value_dim))
        self.scale = shape.scale
        starts = cache.pages.pages[:, 0].reshape(batch, shape.heads)[:, 0] * PAGE
        capacity = int(cache.pages.counts[0]) * PAGE

        def view(pool: KVPool, start: int) -> tuple[torch.Tensor, torch.Tensor]:
            own = slice(start, start + shape.heads * capacity)
            return pool.pair([data[own].view(shape.heads, capacity, shape.head_dim) for data in pool.stored])

        self.kv = [[view(pool, int(start)) for start in starts] for pool in cache.pools]
        self.logits = torch.empty(shape.heads * shape.group * capacity)

    def __call__(self, lengths: np.ndarray) -> None:
        """One decode step at these sequence lengths `[batch]`."""
        for layer in self.kv:
            for request, length in enumerate(lengths):
                k, v = layer[request]
                self.attend(self.q[request], k[:, :length], v[:, :length], self.out[request])

    @abstractmethod
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        """q [heads, group, head_dim], out [heads, group, value_dim]; k, v [heads, length, their dim]."""


class Bmm(DenseKernel):
    name = "bmm, group as query rows"

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        heads, group, length = q.shape[0], q.shape[1], k.shape[1]
        weights = self.logits[: heads * group * length].view(heads, group, length)
        torch.bmm(q * self.scale, k.transpose(1, 2), out=weights)
        torch.softmax(weights, -1, out=weights)
        torch.bmm(weights, v, out=out)


class Sdpa(DenseKernel):
    name = "sdpa, group as query rows"

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        attention = torch.nn.functional.scaled_dot_product_attention
        found = attention(q[None], k[None], _wide(k, v)[None], scale=self.scale)[0]
        out.copy_(found[..., : out.shape[-1]])


class SplitSdpa(DenseKernel):
    """A part of the sequence for each thread that would idle otherwise (flash-decoding): the fused kernel
    gives a thread whole heads, and MLA has one."""

    name = "sdpa over parts, group as query rows"

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
        stored = k, _wide(k, v)
        heads, length, dim = k.shape
        parts = min(length, -(-torch.get_num_threads() // heads))
        even = length - length % parts
        found = [self._fused(q, *(x[:, :even].view(heads, parts, -1, dim) for x in stored))]
        if even < length:
            found.append(self._fused(q, *(x[:, None, even:] for x in stored)))
        outputs, logsumexp = (torch.cat(pieces, 1) for pieces in zip(*found, strict=True))
        shares = torch.softmax(logsumexp, 1)[..., None]
        torch.sum((outputs * shares)[..., : out.shape[-1]], 1, out=out)

    def _fused(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs `[heads, parts, group, dim]` and logsumexp `[heads, parts, group]` over k and v `[heads,
        parts, tokens, dim]`."""
        query = q[:, None].expand(-1, k.shape[1], -1, -1)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        output, logsumexp = kernel(query, k, v, scale=self.scale)
        return output, logsumexp


def _wide(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Values as wide as keys, as the fused kernel wants them: those of a latent are cut out of its output."""
    return v if v.shape == k.shape else k


DENSE_KERNELS: tuple[type[DenseKernel], ...] = (Bmm, Sdpa, SplitSdpa)
