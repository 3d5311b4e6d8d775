"""A case as an engine holds it: one layer's pool, block table and queries, for the device path and, with the
same numbers, for the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tests.vortex.targets.cases import laid_out
from tests.vortex.targets.generated import Case
from vortex.runtime.device import StepSize
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.runtime.pool import PAGE, KVPool

ANYTHING = 2**30 + 12345
"""What integers hold where nothing is to be read."""


@dataclass(frozen=True)
class Engine:
    """How the case is held. `shared`: slots of the pool hold all kv heads and requests have numbers, as in
    SGLang; otherwise every row owns its pages, as in the `hf` engine. `padding`: requests without tokens at
    the end of the batch. `kv`: the pool's number format, where it is not that of the queries."""

    shared: bool = True
    padding: int = 1
    kv: torch.dtype | None = None


class Held:
    """Slots that no token was written to are NaN, and so are the blocks that no row owns."""

    def __init__(self, case: Case, engine: Engine, device: torch.device) -> None:
        self.case, self.engine, self.device = case, engine, device
        self.requests, self.heads = len(case.lengths), case.heads
        self.share = case.heads if engine.shared else 1
        self.owners = self.requests * self.heads // self.share
        self.random = np.random.default_rng(case.seed)
        longest = -(-(np.array(case.lengths) + case.steps - 1) // PAGE)
        counts = np.repeat(longest, self.heads // self.share)
        pages = laid_out(counts, case.seed if case.scattered else None)
        self.pages = pages.pages + 1  # page 0 is nobody's, as in SGLang
        self.slots = (int(counts.sum()) + 2) * PAGE
        dim = case.geometry.head_dim
        self.format = engine.kv or TORCH_DTYPES[case.stored]
        parts = 1 if case.latent else 2
        inner = (self.heads, dim) if engine.shared else (dim,)
        self.tokens = [self._numbers(self.slots, *inner).to(self.format) for _ in range(parts)]
        latent = case.latent[0] if case.latent else 0
        empty = [torch.full(x.shape, torch.nan) for x in self.tokens]
        self.pool = KVPool(*(x.to(self.format).to(device) for x in empty), kv_lora_rank=latent)
        model = TORCH_DTYPES[case.stored]
        self.right_pool = KVPool(*(x.to(model) for x in empty), kv_lora_rank=latent)
        self.clean_pool = KVPool(*(x.to(model) for x in self.tokens), kv_lora_rank=latent)
        """The same with a number in every slot: how large they are."""
        self.batch = self.requests + engine.padding
        numbers = self.random.permutation(self.batch + 3)[: self.batch]
        self.numbers = numbers if engine.shared else np.arange(self.batch)
        """Of the requests, which own their request fields."""
        for owner in range(self.owners):
            self._write(owner, np.arange(case.lengths[owner * self.share // self.heads] - 1))

    def _numbers(self, *shape: int) -> torch.Tensor:
        numbers = self.random.standard_normal(shape, np.float32)
        if self.case.numbers == "integers":
            numbers = np.clip(np.rint(numbers), -2, 2)
        elif self.case.numbers == "large":
            numbers *= 30
        return torch.from_numpy(numbers)

    def _write(self, owner: int, positions: np.ndarray) -> None:
        slots = torch.from_numpy(self.slots_of(owner, positions))
        for pool in (self.pool, self.right_pool):
            for data, tokens in zip(pool.stored, self.tokens, strict=True):
                written = tokens.float()[slots].to(data.dtype).to(data.device)
                data.view(torch.uint8)[slots.to(data.device)] = written.view(torch.uint8)

    def slots_of(self, owner: int, positions: np.ndarray) -> np.ndarray:
        """Slots of the tokens of an owner of pages (a request, or a row)."""
        return np.asarray(self.pages[owner, positions // PAGE] * PAGE + positions % PAGE)

    def lengths(self, step: int) -> np.ndarray:
        """Of the requests, the current token included."""
        return np.array(self.case.lengths) + step

    def write_current(self, step: int) -> None:
        for owner in range(self.owners):
            self._write(owner, self.lengths(step)[owner * self.share // self.heads, None] - 1)

    def queries(self) -> torch.Tensor:
        """`[requests, heads * group, head_dim]`, in the format of the model."""
        case = self.case
        q = self._numbers(self.requests, self.heads * case.group, case.geometry.head_dim)
        return q.to(TORCH_DTYPES[case.stored])

    def ids(self, blocks: int) -> np.ndarray:
        """Block ids of the first `blocks` blocks of every row `[rows, blocks]`, row = request * heads +
        head. What lies past a row's end is some block."""
        size, rows = self.case.block_size, np.arange(self.requests * self.heads)
        places = np.minimum(np.arange(blocks) * size, self.pages.shape[1] * PAGE - size)
        numbers = self.pages[:, places // PAGE] * (PAGE // size) + places % PAGE // size
        return np.asarray(numbers[rows // self.share] * self.share + (rows % self.share)[:, None])

    def table(self, size: StepSize) -> np.ndarray:
        """`DeviceStep.table`, with anything where no block is."""
        table = np.full((size.rows // size.share, size.blocks), ANYTHING, dtype=np.int32)
        last = self.lengths(self.case.steps - 1)
        for owner in range(self.owners):
            count = -(-int(last[owner * self.share // self.heads]) // self.case.block_size)
            slots = self.slots_of(owner, np.arange(count) * self.case.block_size)
            table[owner, :count] = slots // self.case.block_size
        return table

    def req_to_token(self) -> np.ndarray:
        """Slots of each token of each request `[numbers, context]`, as SGLang keeps them."""
        last = self.lengths(self.case.steps - 1)
        context = int(last.max()) + 7
        table = np.full((int(self.numbers.max()) + 1, context), ANYTHING, dtype=np.int32)
        for request, number in enumerate(self.numbers[: self.requests]):
            positions = np.arange(int(last[request]))
            table[number, : len(positions)] = self.slots_of(request, positions)
        return table
