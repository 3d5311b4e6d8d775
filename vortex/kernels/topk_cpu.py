"""Selection into the buffers of a step, on the CPU: what `topk.cu` does, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vortex.runtime.device import DeviceStep
from vortex.runtime.select import sort_keys


def list_on_cpu(scores: torch.Tensor, quotas: Sequence[int | None], step: DeviceStep) -> None:
    """Fill `step.lists` and `step.tokens`; see `vortex.kernels.topk.Selector.run`."""
    size = step.size
    rows = ((step.chosen > 0) & (step.chosen < step.n)).repeat_interleave(size.heads)
    rows = rows[: scores.shape[1]].nonzero()[:, 0]
    requests = rows // size.heads
    n, chosen, seq_len = (x[requests].long() for x in (step.n, step.chosen, step.seq_len))
    places = torch.arange(scores.shape[2])
    valid = (places >= size.bos) & (places < (n - size.eos)[:, None])
    listed = (places < n[:, None]) & ~valid
    for score, quota in zip(scores[:, rows], quotas, strict=True):
        k = chosen - size.bos - size.eos if quota is None else (n - size.bos - size.eos).clamp(max=quota)
        listed |= best(score, valid, k)
    row, place = listed.nonzero(as_tuple=True)
    to = (listed.cumsum(1) - 1)[row, place]
    inside = to < size.chosen
    row, place, to = row[inside], place[inside], to[inside]
    pages = step.table[rows[row] // size.share, place]
    step.lists[rows[row], to] = pages * size.share + (rows[row] % size.share).int()
    step.tokens[rows] = (seq_len - (n - listed.sum(1)) * size.block_size).int()


def select_on_cpu(
    scores: torch.Tensor, n: torch.Tensor, bos: int, eos: int, k: torch.Tensor, most: int
) -> torch.Tensor:
    """See `vortex.kernels.topk.select`."""
    places = torch.arange(scores.shape[1])
    taken = best(scores, (places >= bos) & (places < (n - eos)[:, None]), k)
    row, place = taken.nonzero(as_tuple=True)
    out = torch.zeros((len(scores), most), dtype=torch.int64)
    out[row, (taken.cumsum(1) - 1)[row, place]] = place
    return out


def best(scores: torch.Tensor, valid: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Where the `k [rows]` best of the valid `scores [rows, blocks]` are, as a mask."""
    order = sort_keys(scores, valid).argsort(1, descending=True)
    return torch.empty_like(valid).scatter_(1, order, torch.arange(scores.shape[1]) < k[:, None])
