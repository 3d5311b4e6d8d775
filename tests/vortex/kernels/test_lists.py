"""Block lists as CSR, and their blocks counted; with VORTEX_DEVICE=cuda by the kernels."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import torch

from vortex.kernels.lists import CsrLists, count_sparse
from vortex.runtime.device import DeviceStep, StepSize

DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))


def filled(share: int, requests: int, heads: int, seed: int) -> DeviceStep:
    """A step of sparse, dense and padding requests whose sparse rows have lists of their own lengths."""
    rng = np.random.default_rng(seed)
    size = StepSize(
        requests=requests, heads=heads, blocks=700, chosen=40, block_size=16, bos=1, eos=2, chunk=32,
        share=share, programs=4,
    )  # fmt: skip
    step = DeviceStep(size, DEVICE)
    seq_len = np.where(rng.random(requests) < 0.2, 0, rng.integers(1, 700 * 16, requests))
    n = -(-seq_len // 16)
    chosen = np.where(rng.random(requests) < 0.6, np.minimum(n, 40), n)
    for buffer, values in ((step.seq_len, seq_len), (step.n, n), (step.chosen, chosen)):
        buffer.copy_(torch.from_numpy(values))
    step.table.copy_(torch.from_numpy(rng.integers(0, 1 << 20, step.table.shape)))
    step.lists.copy_(torch.from_numpy(rng.integers(0, 1 << 20, step.lists.shape)))
    step.tokens.copy_(torch.from_numpy(rng.integers(1, 40 * 16 + 1, size.rows)))
    return step


def expected(step: DeviceStep) -> list[tuple[list[int], int]]:
    """The ids that each row reads, and the tokens of the last one."""
    size, rows = step.size, []
    table, lists = step.table.tolist(), step.lists.tolist()
    for row in range(size.rows):
        request = row // size.heads
        n, tokens = int(step.n[request]), int(step.tokens[row])
        if int(step.chosen[request]) < n:
            ids = lists[row][: -(-tokens // size.block_size)]
        else:
            ids = [page * size.share + row % size.share for page in table[row // size.share][:n]]
            tokens = int(step.seq_len[request])
        rows.append((ids, tokens - (len(ids) - 1) * size.block_size if ids else 0))
    return rows


@pytest.mark.parametrize(
    ("share", "requests", "heads"), [(1, 5, 3), (8, 12, 8), (2, 1, 2), (1, 1, 1), (4, 150, 4)]
)
def test_csr_lists_what_every_row_reads(share: int, requests: int, heads: int) -> None:
    for seed in range(4):
        step = filled(share, requests, heads, seed)
        csr = CsrLists(step.size, DEVICE)
        csr.run(step)
        indptr, indices = csr.indptr.tolist(), csr.indices.tolist()
        rows = expected(step)
        assert indptr[0] == 0
        assert [indices[a:b] for a, b in itertools.pairwise(indptr)] == [ids for ids, _ in rows]
        assert csr.last_page_len.tolist() == [last for _, last in rows]


def test_blocks_of_sparse_rows_are_counted() -> None:
    step = filled(2, 40, 2, 7)
    count = torch.tensor([5], device=DEVICE)
    count_sparse(step, count)
    sparse = (step.chosen < step.n).repeat_interleave(2).tolist()
    assert 0 < sum(sparse) < 80
    blocks = sum(len(ids) for (ids, _), own in zip(expected(step), sparse, strict=True) if own)
    assert int(count) == 5 + blocks
