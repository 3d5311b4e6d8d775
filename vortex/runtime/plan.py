"""The plan of one decode step: how many blocks each request may read, and where they go in its block list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vortex.budget import Rule, chosen_blocks
from vortex.config import VortexConfig


@dataclass(frozen=True)
class Plan:
    """Counts per request, on the host. Every kv head of a request has the same counts.

    `seq_len` tokens including the current one; `n = ceil(seq_len / block_size)` blocks; `chosen` blocks to
    read.
    """

    seq_len: np.ndarray
    n: np.ndarray
    chosen: np.ndarray

    @property
    def sparse(self) -> np.ndarray:
        """True for the requests that are scored: those that read fewer blocks than they have."""
        return self.chosen < self.n

    def chunks(self, config: VortexConfig) -> int:
        """Pieces of work that the scores of one kv head are dealt out in: runs of `workload_chunk_size`
        blocks."""
        scored = self.n[self.sparse] - config.block_reserved_bos - config.block_reserved_eos
        return int((-(-scored // config.workload_chunk_size)).sum())


def make_plan(seq_len: np.ndarray, block_size: int, config: VortexConfig, policy: Rule | None) -> Plan:
    """Plan a step for requests of `seq_len` tokens, the current one included."""
    n = -(-seq_len // block_size)
    return Plan(seq_len, n, chosen_blocks(policy, n, config))


def dense_plan(seq_len: np.ndarray, block_size: int) -> Plan:
    """A plan that reads everything."""
    n = -(-seq_len // block_size)
    return Plan(seq_len, n, n)


@dataclass(frozen=True)
class Quota:
    """How many blocks one selection may choose in each row: `k [rows]`, also on the host, and the largest."""

    k: torch.Tensor
    host_k: np.ndarray
    most: int

    @classmethod
    def of(cls, host_k: np.ndarray, device: torch.device) -> Quota:
        k = torch.from_numpy(np.ascontiguousarray(host_k)).to(device)
        return cls(k, host_k, int(host_k.max(initial=0)))


@dataclass(frozen=True)
class BlockList:
    """The blocks that attention reads, as `positions [rows, width]` within a row, its true last block last;
    places past a row's end repeat that block. The first `tokens [rows]` tokens of a list count: all of the
    first `full`, and of the later ones those that `beyond` is false for.
    """

    positions: torch.Tensor
    tokens: torch.Tensor
    full: int
    beyond: torch.Tensor

    @property
    def host_tokens(self) -> np.ndarray:
        return np.asarray(self.tokens.cpu().numpy())


def whole_list(seq_len: np.ndarray, block_size: int, device: torch.device) -> BlockList:
    """All blocks of rows of `seq_len [rows]` tokens."""
    n = -(-seq_len // block_size)
    steps = np.arange(int(n.max(initial=0)))
    positions = torch.from_numpy(np.minimum(steps, n[:, None] - 1)).to(device)
    full = int(seq_len.min()) if len(seq_len) else 0
    tokens = torch.from_numpy(np.ascontiguousarray(seq_len)).to(device)
    places = torch.arange(full, len(steps) * block_size, device=device)
    return BlockList(positions, tokens, full, places >= tokens[:, None])


class SparseRows:
    """The tensors of a plan for its sparse rows; made once a step and shared by every sparse layer.

    `n [rows]` counts blocks; `valid [rows, blocks]` are the blocks that may be picked: those between the
    `bos` first and the `eos` last ones. `owners [rows]` numbers the rows of all requests that were ever in
    the batch: where the request fields of a row are kept.
    """

    def __init__(
        self,
        plan: Plan,
        heads: int,
        block_size: int,
        config: VortexConfig,
        device: torch.device,
        requests: np.ndarray | None = None,
    ) -> None:
        self.requests = np.flatnonzero(plan.sparse)
        self.bos, self.eos = config.block_reserved_bos, config.block_reserved_eos
        self.block_size, self.device = block_size, device
        n = np.repeat(plan.n[self.requests], heads)
        chosen = np.repeat(plan.chosen[self.requests], heads)
        seq_len = np.repeat(plan.seq_len[self.requests], heads)
        numbers = self.requests if requests is None else requests[self.requests]
        self.host_n = n
        self.blocks = int(n.max(initial=0))
        self.planned = Quota.of(chosen - self.bos - self.eos, device)
        self.n, self.owners, self.missing = (
            torch.from_numpy(x).to(device)
            for x in (
                np.ascontiguousarray(n),
                (numbers[:, None] * heads + np.arange(heads)).ravel(),
                n * block_size - seq_len,
            )
        )
        positions = torch.arange(self.blocks, device=device)
        self.valid = (positions >= self.bos) & (positions < self.n[:, None] - self.eos)
        self._scored: dict[tuple[int, int, int], torch.Tensor] = {}
        tokens = seq_len - (n - chosen) * block_size
        self.template = self._template(chosen, tokens)

    def __len__(self) -> int:
        return len(self.host_n)

    def scored(self, first: int, last: int, blocks: int) -> torch.Tensor:
        """Where `valid[first:last, :blocks]`, flattened, is true; found on the host."""
        part = first, last, blocks
        if part not in self._scored:
            steps = np.arange(blocks)
            mask = (steps >= self.bos) & (steps < self.host_n[first:last, None] - self.eos)
            self._scored[part] = torch.from_numpy(np.flatnonzero(mask)).to(self.device)
        return self._scored[part]

    def quota(self, k: int | None) -> Quota:
        """The plan's quota, or `k` blocks where a row has as many to choose from."""
        if k is None:
            return self.planned
        return Quota.of(np.minimum(k, self.host_n - self.bos - self.eos), self.device)

    def _template(self, chosen: np.ndarray, tokens: np.ndarray) -> BlockList:
        """The planned list with the reserved blocks filled in: bos, then places for the selection, then
        eos."""
        steps = np.arange(int(chosen.max(initial=0)))
        slots = np.where(steps < self.bos, steps, self.host_n[:, None] - chosen[:, None] + steps)
        slots = np.minimum(slots, self.host_n[:, None] - 1)
        full = int(tokens.min()) if len(tokens) else 0
        counted = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device)
        places = torch.arange(full, len(steps) * self.block_size, device=self.device)
        return BlockList(torch.from_numpy(slots).to(self.device), counted, full, places >= counted[:, None])

    def place(self, picked: torch.Tensor) -> BlockList:
        """The list of the plan with the selection `picked [rows, planned.most]`, best first."""
        positions = self.template.positions.clone()
        middle = positions[:, self.bos : self.bos + self.planned.most]
        inside = torch.arange(self.planned.most, device=self.device) < self.planned.k[:, None]
        middle.copy_(torch.where(inside, picked, middle))
        return replace(self.template, positions=positions)

    def union(self, picks: Sequence[tuple[torch.Tensor, Quota]]) -> BlockList:
        """The list of the blocks of several selections, each once, ascending; a row's list is as long as
        these make it."""
        none = self.blocks  # a position past every row
        parts = [
            picked.masked_fill(torch.arange(quota.most, device=self.device) >= quota.k[:, None], none)
            for picked, quota in picks
        ]
        merged = torch.cat(parts, 1).sort(1).values
        merged[:, 1:].masked_fill_(merged[:, 1:] == merged[:, :-1].clone(), none)
        merged = merged.sort(1).values
        count = (merged < none).sum(1)[:, None]
        steps = torch.arange(self.bos + merged.shape[1] + self.eos, device=self.device)
        chosen = merged[:, (steps - self.bos).clamp(0, merged.shape[1] - 1)]
        n = self.n[:, None]
        after = (n - self.eos + steps - self.bos - count).minimum(n - 1)
        positions = torch.where(steps < self.bos + count, chosen, after)
        positions = torch.where(steps < self.bos, steps, positions)
        tokens = (self.bos + count[:, 0] + self.eos) * self.block_size - self.missing
        places = torch.arange(len(steps) * self.block_size, device=self.device)
        return BlockList(positions, tokens, 0, places >= tokens[:, None])
