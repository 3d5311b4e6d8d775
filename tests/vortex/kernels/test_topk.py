"""Selection into a step's buffers against the rule of the language: on the CPU its twin in torch, and with
VORTEX_DEVICE=cuda the kernel."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vortex.kernels import topk
from vortex.kernels.topk import SCORES, Selector, Shape, select, shape_of
from vortex.ops import Row
from vortex.ops.selection import top
from vortex.runtime.device import DeviceStep, StepSize

DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))
SETTINGS = settings(max_examples=100, derandomize=True, database=None, deadline=None)
EDGES = (
    0x0000,
    0x8000,
    0x0001,
    0x8001,
    0x3F80,
    0xBF80,
    0x7F80,
    0xFF80,
    0x7C00,
    0xFC00,
    0x7FC0,
    0xFFC0,
    0xFFFF,
)
"""Bits of zeros, denormals, ones, infinities of either 16-bit format, and NaNs of both signs."""
POISON = -7


@dataclass(frozen=True)
class Request:
    """`n` blocks, the last with `missing` tokens too few, of which `chosen` are read."""

    n: int
    chosen: int
    missing: int = 0


class Case:
    """A step of some requests, with a random table and lists that nobody has written."""

    def __init__(
        self, requests: list[Request], heads: int, bos: int, eos: int, *, shared: bool, spare: int = 1
    ) -> None:
        blocks = max(1, *(r.n for r in requests)) + spare
        most = max(1, *(r.n for r in requests))
        self.size = StepSize(
            requests=len(requests),
            heads=heads,
            blocks=blocks,
            chosen=most,
            block_size=8,
            bos=bos,
            eos=eos,
            chunk=32,
            share=heads if shared else 1,
            programs=4,
        )
        self.requests, self.step = requests, DeviceStep(self.size, DEVICE)
        for name, values in {
            "n": [r.n for r in requests],
            "chosen": [r.chosen for r in requests],
            "seq_len": [r.n * 8 - r.missing for r in requests],
        }.items():
            getattr(self.step, name).copy_(torch.tensor(values))
        generator = torch.Generator().manual_seed(len(requests))
        table = torch.randperm(self.step.table.numel(), generator=generator).view_as(self.step.table)
        self.step.table.copy_(table)
        self.step.lists.fill_(POISON)
        self.step.tokens.fill_(POISON)

    def check(self, scores: torch.Tensor, quotas: tuple[int | None, ...], shape: Shape | None = None) -> None:
        """Select by `scores [selections, rows, blocks]` and compare every number of the step."""
        Selector(quotas, 0.0, scores.dtype, shape).run(scores.to(DEVICE), self.step)
        lists, tokens = self.step.lists.cpu(), self.step.tokens.cpu()
        for row in range(self.size.rows):
            expected, counted = self.expected(scores[:, row].float(), quotas, row)
            assert lists[row, : len(expected)].tolist() == expected, f"row {row}"
            assert (lists[row, len(expected) :] == POISON).all(), f"row {row}"
            assert tokens[row] == counted, f"row {row}"

    def expected(
        self, scores: torch.Tensor, quotas: tuple[int | None, ...], row: int
    ) -> tuple[list[int], int]:
        """Ids and tokens of a row by the rule."""
        size, request = self.size, self.requests[row // self.size.heads]
        if request.chosen in (0, request.n):
            return [], POISON
        places = {*range(size.bos), *range(request.n - size.eos, request.n)}
        for score, quota in zip(scores, quotas, strict=True):
            k = request.chosen - size.bos - size.eos if quota is None else quota
            places |= set(top(score[: request.n], Row(request.n, size.bos, size.eos, k)).tolist())
        table = self.step.table[row // size.share].cpu()
        ids = [int(table[place]) * size.share + row % size.share for place in sorted(places)]
        return ids, len(places) * size.block_size - request.missing


def random_scores(kind: str, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.randn(shape)
    made = {
        "normal": lambda: x,
        "negative": lambda: -x.abs() - 1,
        "across zero": lambda: x - 3,
        "lognormal": x.exp,
        "uniform": lambda: torch.rand(shape),
        "bimodal": lambda: x * 0.1 + torch.where(torch.rand(shape) < 0.1, 5.0, -5.0),
        "equal": lambda: torch.full(shape, 1.5),
        "few values": lambda: torch.randint(-1, 2, shape).float(),
        "lowest": lambda: torch.full(shape, -torch.inf),
        "mostly NaN": lambda: torch.where(torch.rand(shape) < 0.95, torch.nan, x),
        "NaN": lambda: torch.full(shape, torch.nan),
        "infinities": lambda: torch.where(torch.rand(shape) < 0.5, torch.inf * x.sign(), x),
        "zeros": lambda: torch.zeros(shape) * x.sign(),
        "tiny": lambda: x * 1e-39,
    }
    return made[kind]().to(dtype)


KINDS = (
    "normal",
    "negative",
    "across zero",
    "lognormal",
    "uniform",
    "bimodal",
    "equal",
    "few values",
    "lowest",
)
KINDS += ("mostly NaN", "NaN", "infinities", "zeros", "tiny")


@st.composite
def requests(draw: st.DrawFn, bos: int, eos: int) -> list[Request]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 40))
        sparse = n > bos + eos + 1 and draw(st.booleans())
        chosen = draw(st.integers(bos + eos + 1, n - 1)) if sparse else draw(st.sampled_from((0, n)))
        made.append(Request(n, chosen, draw(st.integers(0, 7))))
    return made


@SETTINGS
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.sampled_from(list(SCORES)))
def test_lists_are_the_rule(
    data: st.DataObject, bos: int, eos: int, shared: bool, dtype: torch.dtype
) -> None:
    case = Case(data.draw(requests(bos, eos)), 2, bos, eos, shared=shared, spare=data.draw(st.integers(0, 9)))
    quota = st.integers(1, 12) | st.just(40)
    quotas = data.draw(st.just((None,)) | st.tuples(quota, quota))
    few = data.draw(st.lists(st.sampled_from(EDGES) | st.integers(0, 0xFFFF), min_size=1, max_size=9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits = rng.choice(np.array(few, np.uint16), (len(quotas), case.size.rows, case.size.blocks))
    if dtype is torch.float32:
        scores = torch.from_numpy(bits.astype(np.uint32) << 16 | rng.choice([0, 1, 0xFFFF])).view(dtype)
    else:
        scores = torch.from_numpy(bits).view(dtype)
    case.check(scores, quotas)


@pytest.mark.parametrize("dtype", SCORES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_scores(kind: str, dtype: torch.dtype) -> None:
    sizes = [Request(500, 67, 3), Request(333, 4), Request(5, 4), Request(500, 499), Request(9, 9)]
    case = Case([*sizes, Request(0, 0)], 2, 1, 2, shared=True, spare=12)
    shape = case.size.rows, case.size.blocks
    case.check(random_scores(kind, (1, *shape), dtype), (None,))
    case.step.lists.fill_(POISON), case.step.tokens.fill_(POISON)
    case.check(random_scores(kind, (2, *shape), dtype, 1), (30, 41))


def test_a_list_ends_where_the_buffer_does() -> None:
    case = Case([Request(40, 20)], 2, 1, 1, shared=True)
    scores = random_scores("normal", (2, 2, case.size.blocks), torch.float32)
    expected = [case.expected(scores[:, row], (20, 20), row)[0][:12] for row in range(2)]
    guarded = torch.full((3, 12), POISON, dtype=torch.int32, device=DEVICE)
    case.step.lists = guarded[:2]
    object.__setattr__(case.size, "chosen", 12)
    Selector((20, 20), 0.0, torch.float32).run(scores.to(DEVICE), case.step)
    assert guarded[:2].tolist() == expected
    assert (guarded[2] == POISON).all()


@pytest.mark.parametrize("tolerate", [0.0, 0.03, 0.3, 1.0])
@pytest.mark.parametrize("dtype", SCORES, ids=str)
def test_recall_is_what_is_tolerated(dtype: torch.dtype, tolerate: float) -> None:
    case = Case([Request(3000, 131), Request(2500, 1000)], 2, 1, 2, shared=False, spare=1)
    for kind in KINDS:
        scores = random_scores(kind, (1, case.size.rows, case.size.blocks), dtype)
        Selector((None,), tolerate, dtype).run(scores.to(DEVICE), case.step)
        for row in range(case.size.rows):
            expected, counted = case.expected(scores[:, row].float(), (None,), row)
            assert case.step.tokens[row] == counted
            found = case.step.lists[row, : len(expected)].tolist()
            right = set(found) & set(expected)
            assert len(set(found)) == len(found)
            ids = case.step.table[row].cpu()
            assert set(found) <= set(ids[: case.requests[row // 2].n].tolist())
            reserved = case.size.bos + case.size.eos
            assert len(right) - reserved >= (1 - tolerate) * (len(expected) - reserved) - 1e-9, kind


@pytest.mark.parametrize("kind", KINDS)
def test_places_for_the_target(kind: str) -> None:
    scores = random_scores(kind, (4, 203), torch.float32)
    n, k = torch.tensor([203, 150, 12, 203]), torch.tensor([200, 30, 0, 1])
    found = select(scores.to(DEVICE), n.to(DEVICE), 1, 2, k.to(DEVICE), 200).cpu()
    assert found.shape == (4, 200)
    for row in range(4):
        expected = top(scores[row, : n[row]], Row(int(n[row]), 1, 2, int(k[row]))).tolist()
        assert found[row, : k[row]].tolist() == expected


def test_scores_of_another_kind_are_refused() -> None:
    case = Case([Request(40, 20)], 2, 1, 1, shared=True)
    with pytest.raises(ValueError, match="float32"):
        Selector((None,)).run(torch.zeros((1, 2, 41), device=DEVICE), case.step)
    with pytest.raises(ValueError, match="3 selections"):
        Selector((1, 2, 3))


@pytest.mark.parametrize("rows", [8, 128, 4096])
@pytest.mark.parametrize("dtype", SCORES, ids=str)
def test_shapes_hold_a_row(rows: int, dtype: torch.dtype) -> None:
    for blocks in (1, 100, 2048, 8191, 8192, 8193, 32768, 131072):
        shape = shape_of(rows, blocks, dtype, 132)
        room = shape.bytes // dtype.itemsize
        assert shape.ranks <= topk.MOST_RANKS
        assert shape.held == 0 or room >= blocks


SHAPES = (*dict.fromkeys(topk.ONE_BLOCK + topk.MANY_ROWS), Shape(1024, 0))
SHAPES += (Shape(1024, 4, 2), Shape(1024, 4, 8), Shape(1024, 0, 2), Shape(1024, 0, 8))


@pytest.mark.skipif(DEVICE.type != "cuda", reason="shapes are of the kernel: VORTEX_DEVICE=cuda")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", SCORES, ids=str)
def test_every_shape(shape: Shape, dtype: torch.dtype) -> None:
    room = replace(shape, held=shape.held or 3).bytes // dtype.itemsize
    sizes = [Request(room, 300), Request(room - 5, room // 2), Request(40, 10), Request(7, 7)]
    case = Case(sizes, 2, 1, 2, shared=True, spare=0)
    dims = case.size.rows, case.size.blocks
    for kind in ("normal", "few values", "mostly NaN", "across zero"):
        for quotas in ((None,), (100, 1000)):
            case.step.lists.fill_(POISON), case.step.tokens.fill_(POISON)
            case.check(random_scores(kind, (len(quotas), *dims), dtype), quotas, shape)
