"""The plan of one decode step: how many blocks each request may read, and where they go in its block list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vortex.budget import Policy, chosen_blocks
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


def make_plan(seq_len: np.ndarray, block_size: int, config: VortexConfig, policy: Policy | None) -> Plan:
    """Plan a step for requests of `seq_len` tokens, the current one included."""
    n = -(-seq_len // block_size)
    return Plan(seq_len, n, chosen_blocks(policy, n, config))


def dense_plan(seq_len: np.ndarray, block_size: int) -> Plan:
    """A plan that reads everything."""
    n = -(-seq_len // block_size)
    return Plan(seq_len, n, n)


class SparseRows:
    """The tensors of a plan for its sparse rows; made once a step and shared by every sparse layer.

    `n`, `k`, `tokens` are `[rows]`: blocks, blocks to score for, tokens of the chosen blocks. `slots [rows,
    width]` is the block list with the reserved blocks filled in: bos, then `k` places for the selection,
    then eos, so that the true last block comes last; places past a row's end repeat that block. `valid
    [rows, blocks]` are the blocks that may be picked. The first `full` tokens of every block list count;
    `beyond` is true for the later ones that do not.
    """

    def __init__(
        self, plan: Plan, heads: int, block_size: int, config: VortexConfig, device: torch.device
    ) -> None:
        self.requests = np.flatnonzero(plan.sparse)
        self.bos, self.eos = config.block_reserved_bos, config.block_reserved_eos
        n = np.repeat(plan.n[self.requests], heads)
        chosen = np.repeat(plan.chosen[self.requests], heads)
        seq_len = np.repeat(plan.seq_len[self.requests], heads)
        self.host_n = n
        self.host_k = chosen - self.bos - self.eos
        self.host_tokens = seq_len - (n - chosen) * block_size
        full = int(self.host_tokens.min()) if len(n) else 0
        self.width = int(chosen.max(initial=0))
        self.blocks = int(n.max(initial=0))
        steps = np.arange(self.width)
        slots = np.where(steps < self.bos, steps, n[:, None] - chosen[:, None] + steps)
        slots = np.minimum(slots, n[:, None] - 1)
        self.n, self.k, self.tokens, self.slots = (
            torch.from_numpy(np.ascontiguousarray(x)).to(device)
            for x in (n, self.host_k, self.host_tokens, slots)
        )
        self.most = int(self.host_k.max(initial=0))
        self.same = bool((self.host_k == self.most).all())
        first, end = self.bos, self.n[:, None] - self.eos
        positions = torch.arange(self.blocks, device=device)
        self.full = full
        self.beyond = torch.arange(full, self.width * block_size, device=device) >= self.tokens[:, None]
        self.valid = (positions >= first) & (positions < end)

    def __len__(self) -> int:
        return len(self.host_n)

    def place(self, picked: torch.Tensor) -> torch.Tensor:
        """Block list `[rows, width]` from the selection `picked [rows, most]`, best first."""
        chosen = self.slots.clone()
        middle = chosen[:, self.bos : self.bos + self.most]
        if self.same:
            middle.copy_(picked)
        else:
            inside = torch.arange(self.most, device=picked.device) < self.k[:, None]
            middle.copy_(torch.where(inside, picked, middle))
        return chosen
