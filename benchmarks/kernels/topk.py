"""Top-k: our selection, exact and approximate, against torch.topk and FlashInfer's. Scores are read from
several buffers in turn; those of a small case stay in the L2, where a score kernel would have left them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from benchmarks.kernels.results import Results, TopKRow
from benchmarks.kernels.timing import Work, in_graph, rotation
from vortex.kernels.topk import Selector
from vortex.runtime.device import DeviceStep, StepSize

HEADS, BOS, EOS, BLOCK_SIZE = 8, 1, 2, 16
TOLERATED = 0.03
ROOM = 4 << 30
"""Bytes of scores in all buffers of a case."""
NAMES = {torch.bfloat16: "bf16", torch.float32: "float32"}
SCORES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normal": lambda x: x,
    "lognormal": torch.exp,
    "uniform": torch.rand_like,
    "bimodal": lambda x: x / 10 + torch.where(torch.rand_like(x) < 0.1, 5.0, -5.0),
}


@dataclass(frozen=True)
class Case:
    """`k` of `n` scores in each of `rows` rows."""

    rows: int
    n: int
    k: int
    scores: str
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of the scores, and of the list that is written."""
        return self.rows * (self.n * self.dtype.itemsize + 4 * (BOS + self.k + EOS))

    @cached_property
    def buffers(self) -> list[torch.Tensor]:
        """Scores `[1, rows, n]`."""
        torch.manual_seed(0)
        count = rotation(self.bytes, max(1, ROOM // self.bytes))
        shape = 1, self.rows, self.n
        made = SCORES[self.scores]
        return [made(torch.randn(shape, device="cuda")).to(self.dtype) for _ in range(count)]

    @cached_property
    def step(self) -> DeviceStep:
        size = StepSize(
            requests=self.rows // HEADS,
            heads=HEADS,
            blocks=self.n,
            chosen=BOS + self.k + EOS,
            block_size=BLOCK_SIZE,
            bos=BOS,
            eos=EOS,
            chunk=64,
            share=HEADS,
            programs=132,
        )
        step = DeviceStep(size, "cuda")
        step.n.fill_(self.n)
        step.chosen.fill_(size.chosen)
        step.seq_len.fill_(self.n * BLOCK_SIZE)
        for row in step.table:
            row.copy_(torch.randperm(self.n, device="cuda"))
        return step

    @property
    def request_of_row(self) -> torch.Tensor:
        return torch.arange(self.rows, device="cuda", dtype=torch.int32) // HEADS

    def recall(self, places: torch.Tensor, scores: torch.Tensor) -> float:
        """Share of the chosen `places [rows, k]` whose score is no worse than the k-th best of those that
        could be chosen, `scores [rows, ...]`."""
        chosen = scores.gather(1, places)
        least = scores.topk(self.k, 1).values[:, -1:]
        return float((chosen >= least).float().mean())

    def places(self, pages: torch.Tensor) -> torch.Tensor:
        """Where in the table of a row's request its `pages [rows, ...]` are."""
        return self.step.table.argsort(1)[self.request_of_row.long()].gather(1, pages.long())


Way = Callable[[Case], tuple[list[Work], float]]
"""Sets a case up: the work on each buffer, and the recall on the first."""


def ours(tolerated: float) -> Way:
    def way(case: Case) -> tuple[list[Work], float]:
        selector = Selector((None,), tolerated, case.dtype)

        def work(scores: torch.Tensor) -> Work:
            return lambda: selector.run(scores, case.step)

        works = [work(scores) for scores in case.buffers]
        works[0]()
        head = torch.arange(case.rows, device="cuda")[:, None] % HEADS
        places = case.places((case.step.lists[:, BOS:-EOS] - head) // HEADS)
        return works, case.recall(places - BOS, case.buffers[0][0][:, BOS:-EOS])

    return way


def torch_topk(case: Case) -> tuple[list[Work], float]:
    """All scores: there are no reserved blocks, no table and no list."""

    def work(scores: torch.Tensor) -> Work:
        return lambda: torch.topk(scores[0], case.k, dim=1, sorted=False)

    return [work(scores) for scores in case.buffers], 1.0


def flashinfer(tie_break: int) -> Way:
    """Places that go through the table; no reserved blocks. `tie_break` 1: ties to the lower place."""

    def way(case: Case) -> tuple[list[Work], float]:
        from flashinfer import top_k_page_table_transform

        lengths = torch.full((case.rows,), case.n, dtype=torch.int32, device="cuda")
        owner = case.request_of_row

        def work(scores: torch.Tensor) -> Callable[[], torch.Tensor]:
            def run() -> torch.Tensor:
                pages = top_k_page_table_transform(
                    scores[0], case.step.table, lengths, case.k, row_to_batch=owner, tie_break=tie_break
                )
                assert isinstance(pages, torch.Tensor)
                return pages

            return run

        works = [work(scores) for scores in case.buffers]
        recall = case.recall(case.places(works[0]()), case.buffers[0][0])
        return list(works), recall

    return way


WAYS: dict[str, Way] = {
    "ours, exact": ours(0.0),
    f"ours, approximate ({TOLERATED})": ours(TOLERATED),
    "torch.topk": torch_topk,
    "FlashInfer": flashinfer(0),
    "FlashInfer, ties to the lower place": flashinfer(1),
}


def cases() -> Iterator[Case]:
    """The sizes of the bars with every distribution, longer and other numbers of rows with the normal one."""
    for dtype in NAMES:
        for n in (2048, 8192):
            for k in (64, 256):
                for scores in SCORES:
                    yield Case(128, n, k, scores, dtype)
    for rows, n in ((8, 2048), (512, 2048), (512, 8192), (8, 131072), (128, 131072)):
        yield Case(rows, n, 64, "normal", torch.bfloat16)


def rows(copy_bandwidth: float) -> Iterator[TopKRow]:
    """Every way on every case; the others than ours where scores are normal."""
    for case in cases():
        for name, way in WAYS.items():
            if case.scores == "normal" or name.startswith("ours"):
                works, recall = way(case)
                yield _row(case, name, works, recall, copy_bandwidth)
        if case.scores == "normal" and case.k == 64:
            case.step.chosen.zero_()
            works, _ = ours(0.0)(case)
            yield _row(case, "ours, nothing to do", works, 1.0, copy_bandwidth)


def _row(case: Case, name: str, works: list[Work], recall: float, copy_bandwidth: float) -> TopKRow:
    while len(works) < 16:  # so that the launch of the graph disappears in the mean
        works = works * 2
    return TopKRow(
        name=name,
        rows=case.rows,
        n=case.n,
        k=case.k,
        scores=f"{case.scores}, {NAMES[case.dtype]}",
        timing=in_graph(works),
        floor_us=case.bytes / copy_bandwidth * 1e6,
        recall=recall,
    )


def topk(results: Results) -> None:
    """All of them."""
    for row in rows(results.copy_gb_s * 1e9):
        results.topk.append(row)
        print(f"{row.name} | {row.rows} x {row.n}, k {row.k} | {row.scores} | {row.timing} us", flush=True)
