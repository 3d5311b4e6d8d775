"""The planner on CPU tensors: what `plan.cu` computes, in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vortex.budget import chosen_blocks
from vortex.kernels.plan_count import CUTS, PART_COST, PART_TOKENS, Count, Crossover
from vortex.runtime.device import DeviceStep, StepSize

if TYPE_CHECKING:
    from vortex.kernels.plan import Planner


def plan_on_cpu(
    planner: Planner,
    step: DeviceStep,
    seq_len: torch.Tensor,
    requests: torch.Tensor | None,
    req_to_token: torch.Tensor | None,
) -> None:
    """See `Planner.run`."""
    size, batch = planner.size, len(seq_len)
    length = np.zeros(size.requests, dtype=np.int64)
    length[:batch] = np.clip(seq_len.numpy(), 0, size.blocks * size.block_size)
    owner = np.arange(size.requests) if requests is None else np.zeros(size.requests, dtype=np.int64)
    if requests is not None:
        owner[:batch] = requests.numpy()
    n = -(-length // size.block_size)
    chosen, used = n.copy(), n > 0
    chosen[used] = chosen_blocks(planner.policy, n[used], planner.config)
    if planner.listed is None:
        chosen = np.where(chosen < n, np.minimum(chosen, size.chosen), n)
    crossed = planner.crossover is not None and _dense_is_faster(planner, planner.crossover, n, chosen)
    if crossed:
        chosen = n
    listed = _listed(planner, n, chosen)
    for buffer, values in (
        (step.seq_len, length), (step.n, n), (step.chosen, chosen), (step.owner, owner),
    ):  # fmt: skip
        buffer.numpy()[:] = values
    chunks = _chunks(size, n, chosen)
    step.chunks.numpy()[: len(chunks)] = chunks
    step.chunk_count.numpy()[:] = len(chunks)
    parts, first = cut_into_parts(size, listed)
    step.parts.numpy()[: len(parts)] = parts
    step.part_first.numpy()[:] = first
    step.part_count.numpy()[:] = len(parts)
    if req_to_token is not None:
        _snapshot(size, step.table.numpy(), n[:batch], owner[:batch], req_to_token.numpy())
    _count(planner, length, n, chosen, crossed, len(chunks))


def _listed(planner: Planner, n: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The blocks in the list of each request; for a Union the most that it can be."""
    if planner.listed is None:
        return chosen
    return np.where(chosen < n, np.minimum(n, planner.listed), n)


def _dense_is_faster(planner: Planner, costs: Crossover, n: np.ndarray, chosen: np.ndarray) -> bool:
    size, sparse = planner.size, chosen < n
    if not sparse.any():
        return False
    scored, read = (n - size.bos - size.eos)[sparse].sum(), _listed(planner, n, chosen).sum()
    dense_us, sparse_us = costs.times(n.sum(), scored, read)
    return bool(dense_us <= sparse_us)


def _chunks(size: StepSize, n: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    scored = np.where(chosen < n, n - size.bos - size.eos, 0)
    pieces = -(-scored // size.chunk)
    request = np.repeat(np.arange(len(n)), pieces)
    number = np.arange(len(request)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.stack((request, size.bos + number * size.chunk), 1)


def cut_into_parts(size: StepSize, listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`parts [count, 3]` and `part_first` of lists of `listed [requests]` blocks.

    Compared are `CUTS` lengths of a part by how long a program is busy that takes its share of them, the
    longest part standing for all; of the best ones the longest length is taken. A list is cut evenly.
    """
    best, pieces = None, np.zeros_like(listed)
    for length in _lengths(size, int(listed.sum())):
        cut = -(-listed // length)
        total = int(cut.sum())
        if total > size.parts:
            continue
        longest = int((-(-listed // np.maximum(cut, 1))).max(initial=0))
        turns = -(-total // size.programs)
        busy = turns * (longest * size.block_size + PART_COST)
        if best is None or busy <= best:
            best, pieces = busy, cut
    first = np.concatenate(([0], np.cumsum(pieces)))
    request = np.repeat(np.arange(len(listed)), pieces)
    number = np.arange(len(request)) - first[request]
    start = number * listed[request] // pieces[request]
    end = (number + 1) * listed[request] // pieces[request]
    return np.stack((request, start, end - start), 1), first


def _lengths(size: StepSize, total: int) -> list[int]:
    """The lengths of a part that are compared, in blocks, ascending; the last one is never too short."""
    least = max(1, PART_TOKENS // size.block_size)
    share = -(-total // size.programs)
    return [max(least, -(-share * (i + 1) // 8)) for i in range(CUTS)]


def _snapshot(
    size: StepSize, table: np.ndarray, n: np.ndarray, numbers: np.ndarray, req_to_token: np.ndarray
) -> None:
    slots = req_to_token[np.clip(numbers, 0, len(req_to_token) - 1), :: size.block_size]
    per_request = size.heads // size.share
    for request, blocks in enumerate(np.minimum(n, slots.shape[1])):
        for row in range(request * per_request, (request + 1) * per_request):
            table[row, :blocks] = slots[request, :blocks] // size.block_size


def _count(
    planner: Planner, length: np.ndarray, n: np.ndarray, chosen: np.ndarray, crossed: bool, chunks: int
) -> None:
    counts, heads = planner.counts.numpy(), planner.size.heads
    counts[Count.STEPS] += 1
    counts[Count.CROSSOVER_STEPS] += crossed
    counts[Count.BLOCKS_FINISHED] += heads * int(
        ((length > 0) & (length % planner.size.block_size == 0)).sum()
    )
    sparse = chosen < n
    if not sparse.any():
        return
    read = chosen if planner.listed is None else np.where(sparse, 0, n)
    counts[Count.SPARSE_STEPS] += 1
    counts[Count.ROWS_SPARSE] += heads * int(sparse.sum())
    counts[Count.ROWS_DENSE] += heads * int((~sparse & (n > 0)).sum())
    counts[Count.BLOCKS_READ] += heads * int(read.sum())
    counts[Count.BLOCKS_TOTAL] += heads * int(n.sum())
    counts[Count.CHUNKS] += heads * chunks
