"""Selection on the device: from scores to block lists, in one launch (`topk.cu`).

On CPU tensors `topk_cpu.py` fills the same buffers with the same ids. The order is that of
`vortex.runtime.select`: ties go to the lower place, NaN comes last.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vortex.kernels import cuda
from vortex.kernels.topk_cpu import list_on_cpu, select_on_cpu
from vortex.runtime.device import DeviceStep

SCORES = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
"""Formats of scores, and what CUDA calls them."""
MOST_RANKS = 8
"""Blocks of the largest cluster."""


@dataclass(frozen=True)
class Shape:
    """Who works on a row: `ranks` blocks of `threads`, which keep `held` loads of `words` times 4 bytes each
    in registers, or read the row again in every pass where `held` is 0."""

    threads: int
    held: int
    ranks: int = 1
    words: int = 4

    @property
    def bytes(self) -> int:
        """Of a row that is kept."""
        return self.threads * self.held * self.words * 4 * self.ranks


ONE_BLOCK = tuple(
    Shape(threads, held, words=words)
    for threads, held, words in (
        (512, 1, 1),
        (1024, 1, 1),
        (512, 1, 4),
        (1024, 1, 4),
        (1024, 2, 4),
        (1024, 4, 4),
    )
)
"""For rows of which each has a multiprocessor of its own: the quickest for one row, by size. Short ones are
dealt out to many threads, as the work of a thread on each of its keys takes longest."""
MANY_ROWS = tuple(Shape(*x) for x in ((256, 1), (512, 1), (256, 4), (512, 4), (1024, 4)))
"""For more rows than multiprocessors: the most rows in flight."""


def shape_of(rows: int, blocks: int, dtype: torch.dtype, processors: int) -> Shape:
    """The shape for `rows` of up to `blocks` scores on a GPU of so many multiprocessors, as measured on an
    H200 (`benchmarks.kernels`)."""
    size = blocks * dtype.itemsize
    for shape in ONE_BLOCK if rows <= processors else MANY_ROWS:
        if size <= shape.bytes:
            return shape
    largest = ONE_BLOCK[-1]
    ranks = 2
    while ranks < MOST_RANKS and size > largest.bytes * ranks:
        ranks *= 2
    if rows * ranks > processors:
        return Shape(largest.threads, 0)
    return Shape(largest.threads, largest.held if size <= largest.bytes * ranks else 0, ranks)


class Selector:
    """Lists the blocks that sparse rows read.

    `quotas`: how many blocks each selection chooses, None where the plan says; two make a Union, whose blocks
    are listed once each. `tolerate_ratio`: share of a selection that need not be among the best; 0 is exact.
    `shape` None: by the size of the scores.
    """

    def __init__(
        self,
        quotas: Sequence[int | None],
        tolerate_ratio: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
        shape: Shape | None = None,
    ) -> None:
        self.quotas, self.tolerate_ratio, self.dtype, self.shape = tuple(quotas), tolerate_ratio, dtype, shape
        if len(self.quotas) not in (1, 2) or dtype not in SCORES:
            raise ValueError(f"{len(self.quotas)} selections by scores of {dtype} are not supported")

    def run(self, scores: torch.Tensor, step: DeviceStep) -> None:
        """Fill `step.lists` and `step.tokens` from `scores [selections, rows, blocks]`, contiguous, of the
        step's first rows; those of requests that are dense, or padding, are left alone. Loads are widest
        where `blocks` is a multiple of 8; it may be more than the step has.
        """
        size = step.size
        if scores.dtype != self.dtype or len(scores) != len(self.quotas) or not scores.is_contiguous():
            raise ValueError(
                f"scores are {tuple(scores.shape)} of {scores.dtype} with strides {scores.stride()}: not "
                f"({len(self.quotas)}, rows, blocks), contiguous, of {self.dtype}"
            )
        if not scores.is_cuda:
            list_on_cpu(scores, self.quotas, step)
            return
        job = _Job(
            *(cuda.pointer(getattr(step, name)) for name in _BUFFERS),
            rows=scores.shape[1],
            heads=size.heads,
            share=size.share,
            blocks=scores.shape[2],
            table_width=size.blocks,
            list_width=size.chosen,
            block_size=size.block_size,
            bos=size.bos,
            eos=size.eos,
            tolerance=self.tolerate_ratio,
        )
        _launch(job, scores, self.quotas, self.shape)


def select(
    scores: torch.Tensor, n: torch.Tensor, bos: int, eos: int, k: torch.Tensor, most: int
) -> torch.Tensor:
    """Places `[rows, most]` of the best scores of `[rows, blocks]` at `[bos, n - eos)`, ascending; `n [rows]`
    blocks, and the first `k [rows]` places of a row count."""
    if not scores.is_cuda:
        return select_on_cpu(scores, n, bos, eos, k, most)
    scores = scores.contiguous()
    places = torch.zeros((len(scores), most), dtype=torch.int32, device=scores.device)
    counts = [x.to(torch.int32) for x in (n, k)]
    job = _Job(
        n=cuda.pointer(counts[0]),
        chosen=cuda.pointer(counts[1]),
        lists=cuda.pointer(places),
        rows=len(scores),
        heads=1,
        share=1,
        blocks=scores.shape[1],
        list_width=most,
        bos=bos,
        eos=eos,
    )
    _launch(job, scores[None], (None,))
    return places.long()


_BUFFERS = ("seq_len", "n", "chosen", "table", "lists", "tokens")


class _Job(ctypes.Structure):
    """`Step` of topk.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _BUFFERS),
        *(
            (name, ctypes.c_int)
            for name in ("rows", "heads", "share", "blocks", "table_width", "list_width", "block_size")
        ),
        *((name, ctypes.c_int) for name in ("bos", "eos", "quota", "second_quota", "ahead")),
        ("tolerance", ctypes.c_double),
    )


def _launch(
    job: _Job, scores: torch.Tensor, quotas: Sequence[int | None], shape: Shape | None = None
) -> None:
    job.quota, job.second_quota = (-1 if k is None else k for k in (*quotas, None)[:2])
    target, processors = _gpu(scores.device)
    rows = scores.shape[1]
    shape = shape or shape_of(rows, scores.shape[2], scores.dtype, processors)
    job.ahead = rows * shape.ranks <= 2 * processors
    library = cuda.load(built(scores.dtype, len(scores), target))
    status = library.topk(
        cuda.pointer(scores),
        ctypes.byref(job),
        shape.threads,
        shape.held,
        shape.words,
        shape.ranks,
        cuda.stream(),
    )
    cuda.check(status, "topk")


@functools.cache
def _gpu(device: torch.device) -> tuple[str, int]:
    """Architecture and number of multiprocessors."""
    return cuda.architecture(device), torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def built(dtype: torch.dtype, selections: int, target: str) -> Path:
    """The library for scores of a format and a number of selections."""
    source = (cuda.HEADERS / "topk.cu").read_text()
    defined = f"#define SCORE {SCORES[dtype]}\n#define SELECTIONS {selections}\n"
    return cuda.build("topk", defined + source, target)
