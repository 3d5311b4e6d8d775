"""Block lists after the selection: as CSR for FlashInfer, and how many blocks they hold."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import torch

from vortex.kernels import cuda
from vortex.runtime.device import DeviceStep, StepSize


class CsrLists:
    """What every row of a step reads, as FlashInfer's page table with pages of `block_size` tokens: row r
    reads the block ids `indices[indptr[r] : indptr[r + 1]]`, the last of which holds `last_page_len[r]`
    tokens (0 where the row has nothing to do). int32; room for a step that reads everything.
    """

    def __init__(self, size: StepSize, device: torch.device | str) -> None:
        self.size = size
        self.indptr = torch.zeros(size.rows + 1, dtype=torch.int32, device=device)
        self.indices = torch.zeros(size.rows * size.blocks, dtype=torch.int32, device=device)
        self.last_page_len = torch.zeros(size.rows, dtype=torch.int32, device=device)

    def run(self, step: DeviceStep) -> None:
        """Fill the buffers after the selection of a layer: two launches, which a CUDA graph can hold."""
        if step.device.type == "cuda":
            pointers = (cuda.pointer(x) for x in (self.indptr, self.indices, self.last_page_len))
            status = _library(step.device).vortex_csr(_arguments(step), *pointers, cuda.stream())
            return cuda.check(status, "csr")
        tokens, sparse = _tokens(step)
        size = self.size
        blocks = -(-tokens // size.block_size)
        self.indptr[1:] = torch.from_numpy(np.cumsum(blocks))
        self.last_page_len[:] = torch.from_numpy(np.where(tokens, tokens - (blocks - 1) * size.block_size, 0))
        for row, (start, count) in enumerate(zip(self.indptr.tolist(), blocks, strict=False)):
            whole = step.table[row // size.share] * size.share + row % size.share
            self.indices[start : start + count] = (step.lists[row] if sparse[row] else whole)[:count]
        return None


def count_sparse(step: DeviceStep, count: torch.Tensor) -> None:
    """Add the blocks in the lists of sparse rows to `count [1]`, int64, on the device of the step."""
    if step.device.type == "cuda":
        status = _library(step.device).vortex_count_sparse(
            _arguments(step), cuda.pointer(count), cuda.stream()
        )
        return cuda.check(status, "count_sparse")
    tokens, sparse = _tokens(step)
    count += int((-(-tokens // step.size.block_size))[sparse].sum())
    return None


def _tokens(step: DeviceStep) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that each row reads, and whether it is sparse."""
    heads = step.size.heads
    sparse = np.repeat((step.chosen < step.n).numpy(), heads)
    return np.where(sparse, step.tokens.numpy(), np.repeat(step.seq_len.numpy(), heads)), sparse


_POINTERS = ("seq_len", "n", "chosen", "table", "lists", "tokens")
_INTS = ("rows", "heads", "share", "blocks", "width", "block_size")


class _Step(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_void_p) for name in _POINTERS), *((name, ctypes.c_int) for name in _INTS)]


def _arguments(step: DeviceStep) -> ctypes.c_void_p:
    size = step.size
    pointers = (getattr(step, name).data_ptr() for name in _POINTERS)
    numbers = (size.rows, size.heads, size.share, size.blocks, step.lists.shape[1], size.block_size)
    return ctypes.byref(_Step(*pointers, *numbers))  # type: ignore[return-value]


@functools.cache
def _library(device: torch.device) -> ctypes.CDLL:
    source = (cuda.HEADERS / "lists.cu").read_text()
    return cuda.load(cuda.build("lists", source, cuda.architecture(device)))
