"""Steps with random lengths, tables, lists and parts, and their attention in float32."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.pool import KVPool

DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))


@dataclass(frozen=True)
class Shape:
    """A layer's attention; `rope` > 0 makes it a latent of `dim` values and `rope` more columns."""

    heads: int = 2
    group: int = 4
    dim: int = 64
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    kv_dtype: torch.dtype | None = None
    rope: int = 0
    shared: bool = True
    """Whether the slots of the pool hold all heads, or every row owns its pages."""

    @property
    def share(self) -> int:
        return self.heads if self.shared else 1

    @property
    def key_dim(self) -> int:
        return self.dim + self.rope


@dataclass(frozen=True)
class Request:
    """`chosen` blocks of `tokens` tokens; None: dense. No tokens: padding. `pieces`: parts of its list."""

    tokens: int
    chosen: int | None = None
    pieces: int = 1


class Case:
    """A filled step, its pool and queries. Tokens that nobody may read are NaN."""

    def __init__(self, shape: Shape, requests: list[Request], seed: int = 0, spare: int = 1) -> None:
        self.shape, self.requests = shape, requests
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        blocks = max(1, *(-(-r.tokens // shape.block_size) for r in requests)) + spare
        most = max(1, *(r.chosen or 0 for r in requests)) + spare
        size = StepSize(
            requests=len(requests) + spare,
            heads=shape.heads,
            blocks=blocks,
            chosen=most,
            block_size=shape.block_size,
            bos=1,
            eos=1,
            chunk=8,
            share=shape.share,
            programs=sum(r.pieces for r in requests),
        )
        self.size, self.step = size, DeviceStep(size, "cpu")
        self.q = torch.randn(size.requests, shape.heads * shape.group, shape.key_dim).to(shape.dtype)
        self.scale = 1 / math.sqrt(shape.key_dim)
        self._pages()
        self._parts()
        self.lists = self._lists()
        self.pool = KVPool(
            *(self._stored() for _ in range(1 if shape.rope else 2)),
            kv_lora_rank=shape.dim if shape.rope else 0,
        )

    def _pages(self) -> None:
        step, size = self.step, self.size
        entries = size.rows // size.share * size.blocks
        self.pool_blocks = entries + 3
        step.table.copy_(
            torch.from_numpy(self.rng.permutation(self.pool_blocks)[:entries]).view_as(step.table)
        )
        for i, request in enumerate(self.requests):
            n = -(-request.tokens // size.block_size)
            step.seq_len[i], step.n[i] = request.tokens, n
            step.chosen[i] = n if request.chosen is None else min(request.chosen, n)

    def _parts(self) -> None:
        made: list[tuple[int, int, int]] = []
        for i, request in enumerate(self.requests):
            self.step.part_first[i] = len(made)
            places = int(self.step.chosen[i])
            cuts = np.unique(np.linspace(0, places, request.pieces + 1).astype(int))
            made += [(i, int(a), int(b - a)) for a, b in pairwise(cuts)]
        self.step.part_first[len(self.requests) :] = len(made)
        self.step.part_count[0] = len(made)
        if made:
            self.step.parts.fill_(2**30 + 12345)  # behind the last one is anything
            self.step.parts[: len(made)] = torch.tensor(made, dtype=torch.int32)

    def ids(self, row: int, places: np.ndarray) -> np.ndarray:
        share = self.size.share
        return np.asarray(self.step.table[row // share].numpy()[places] * share + row % share)

    def _lists(self) -> dict[int, tuple[np.ndarray, int]]:
        """Ids and tokens of what each row reads; also written to the step, where unread places point past
        the pool."""
        found = {}
        self.step.lists.fill_(2**30)
        for row in range(len(self.requests) * self.size.heads):
            i = row // self.size.heads
            n, chosen, tokens = int(self.step.n[i]), int(self.step.chosen[i]), self.requests[i].tokens
            if chosen == n:
                found[row] = self.ids(row, np.arange(n)), tokens
                continue
            middle = self.rng.permutation(np.arange(1, n - 1))[: chosen - 2]
            ids = self.ids(row, np.concatenate(([0], middle, [n - 1]))[:chosen])
            found[row] = ids, tokens - (n - chosen) * self.size.block_size
            self.step.lists[row, :chosen] = torch.from_numpy(ids)
            self.step.tokens[row] = found[row][1]
        return found

    def slots(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots and heads of the tokens that a row reads."""
        ids, tokens = self.lists[row]
        at = np.arange(tokens)
        block = ids[at // self.size.block_size]
        slots = block // self.size.share * self.size.block_size + at % self.size.block_size
        return slots, block % self.size.share

    def _stored(self) -> torch.Tensor:
        shape = self.shape
        stored = torch.full((self.pool_blocks * shape.block_size, shape.share, shape.key_dim), math.nan)
        for row in self.lists:
            slots, heads = (torch.from_numpy(x) for x in self.slots(row))
            stored[slots, heads] = torch.randn(len(slots), shape.key_dim)
        stored = stored.to(shape.kv_dtype or shape.dtype)
        return stored if shape.shared else stored[:, 0]

    def expected(self) -> torch.Tensor:
        """In float32; NaN where nothing is written."""
        out = torch.full((self.size.rows, self.shape.group, self.shape.dim), math.nan)
        k, v = self.pool.k.float(), self.pool.v.float()
        if not self.shape.shared:
            k, v = k[:, None], v[:, None]
        queries = self.q.float().unflatten(1, (self.size.heads, -1)).flatten(0, 1)
        for row in self.lists:
            slots, heads = (torch.from_numpy(x) for x in self.slots(row))
            if len(slots):
                weights = torch.softmax(queries[row] @ k[slots, heads].T * self.scale, -1)
                out[row] = weights @ v[slots, heads]
        return out

    def to(self, device: torch.device) -> Case:
        """The same case there, in place."""
        for name, value in vars(self.step).items():
            if isinstance(value, torch.Tensor):
                setattr(self.step, name, value.to(device))
        self.step.device = device
        self.q = self.q.to(device)
        self.pool.stored = tuple(x.to(device) for x in self.pool.stored)
        return self
