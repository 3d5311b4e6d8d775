"""Selection and block lists against their rules in plain Python, on floats that are made to go wrong."""

from __future__ import annotations

from random import Random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vortex.config import VortexConfig
from vortex.ops import Row
from vortex.ops.selection import top
from vortex.runtime.plan import BlockList, Quota, SparseRows, make_plan
from vortex.runtime.select import top_blocks

CPU = torch.device("cpu")
SETTINGS = settings(max_examples=150, derandomize=True, database=None, deadline=None)
EDGES = (0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000)
EDGES += (0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF)
"""Zeros, denormals, the least normal, one, the largest, infinities, and NaNs of both signs."""

patterns = st.sampled_from(EDGES) | st.integers(0, 2**32 - 1)


def floats(bits: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(bits, np.uint32).view(np.float32).copy())


def by_the_rule(scores: list[float], valid: list[bool], k: int) -> list[int]:
    """The best first: larger scores, NaN after every number, of equals the lower position."""
    places = [at for at, given in enumerate(valid) if given]
    numbers = sorted((at for at in places if scores[at] == scores[at]), key=lambda at: (-scores[at], at))
    return [*numbers, *(at for at in places if scores[at] != scores[at])][:k]


@SETTINGS
@given(st.data())
def test_top_blocks_is_the_rule(data: st.DataObject) -> None:
    width, rows = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 4))
    few = data.draw(st.lists(patterns, min_size=1, max_size=4))  # so that there are ties
    row = st.lists(st.sampled_from(few) | patterns, min_size=width, max_size=width)
    scores = torch.stack([floats(data.draw(row)) for _ in range(rows)])
    valid = torch.tensor([[bool(data.draw(st.integers(0, 3))) for _ in range(width)] for _ in range(rows)])
    most = data.draw(st.integers(0, width))
    picked = top_blocks(scores, valid, most)
    assert picked.shape == (rows, most)
    for index in range(rows):
        k = min(most, int(valid[index].sum()))
        expected = by_the_rule(scores[index].tolist(), valid[index].tolist(), k)
        assert picked[index, :k].tolist() == expected


@SETTINGS
@given(st.lists(patterns, min_size=1, max_size=24), st.integers(0, 4), st.integers(0, 4), st.integers(0, 24))
def test_the_reference_is_the_rule(bits: list[int], bos: int, eos: int, k: int) -> None:
    scores = floats(bits)
    valid = [bos <= at < len(bits) - eos for at in range(len(bits))]
    found = top(scores[:, None, None], Row(len(bits), bos, eos, k))
    assert found.tolist() == sorted(by_the_rule(scores.tolist(), valid, k))


@st.composite
def sparse_rows(draw: st.DrawFn) -> SparseRows:
    """Rows of a plan of which at least one is sparse."""
    size, bos, eos = draw(st.sampled_from((4, 16, 128))), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    topk = draw(st.integers(1, 6))
    config = VortexConfig(
        topk_val=topk,
        topk_ratio=draw(st.sampled_from((0.0, 0.4))),
        block_size=size,
        block_reserved_bos=bos,
        block_reserved_eos=eos,
    )
    least = size * (bos + eos + topk) + 1
    lengths = [*draw(st.lists(st.integers(1, 60 * size), max_size=4)), draw(st.integers(least, 60 * size))]
    plan = make_plan(np.array(lengths), size, config, None)
    return SparseRows(plan, draw(st.integers(1, 3)), size, config, CPU)


def picks(rows: SparseRows, quota: Quota, rng: Random) -> torch.Tensor:
    """A random selection that fills the quota."""
    scores = torch.tensor([[rng.random() for _ in range(rows.blocks)] for _ in range(len(rows))])
    return top_blocks(scores, rows.valid, quota.most)


def check_list(rows: SparseRows, listed: BlockList, chosen: list[set[int]]) -> None:
    """A row's list is its reserved blocks and the chosen ones, its true last block last, and its tokens are
    those of the list."""
    for row, blocks in enumerate(chosen):
        n, missing = int(rows.host_n[row]), int(rows.missing[row])
        expected = {*range(rows.bos), *blocks, *range(n - rows.eos, n)}
        found = listed.positions[row].tolist()
        own = found[: len(expected)]
        assert len(own) == len(set(own)) == len(expected)
        assert set(own) == expected
        assert own[-1] == n - 1
        assert set(found[len(expected) :]) <= {n - 1}
        tokens = len(expected) * rows.block_size - missing
        assert int(listed.tokens[row]) == tokens
        places = np.arange(listed.full, listed.positions.shape[1] * rows.block_size)
        assert listed.full <= tokens
        assert listed.beyond[row].tolist() == (places >= tokens).tolist()


@SETTINGS
@given(sparse_rows(), st.randoms(use_true_random=True), st.integers(1, 50), st.integers(1, 50))
def test_lists_are_the_sets_of_the_rule(rows: SparseRows, rng: Random, k0: int, k1: int) -> None:
    planned = picks(rows, rows.planned, rng)
    taken = [set(row[:k].tolist()) for row, k in zip(planned, rows.planned.host_k, strict=True)]
    check_list(rows, rows.place(planned), taken)

    both = [(picks(rows, quota, rng), quota) for quota in (rows.quota(k0), rows.quota(k1))]
    chosen = []
    for row, n in enumerate(rows.host_n):
        sets = [set(picked[row, : quota.host_k[row]].tolist()) for picked, quota in both]
        for k, found in zip((k0, k1), sets, strict=True):
            assert len(found) == min(k, n - rows.bos - rows.eos)
        chosen.append(sets[0] | sets[1])
    check_list(rows, rows.union(both), chosen)
