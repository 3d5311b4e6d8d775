"""Sparse decode attention against a float32 softmax, with everything that it must not read poisoned.
`VORTEX_DEVICE=cuda` runs the kernels on a GPU."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vortex.kernels.attention_steps import DEVICE, Case, Request, Shape
from vortex.kernels.attention import SparseDecode

GPU = DEVICE.type == "cuda"
DTYPES = [torch.float32, torch.bfloat16] if GPU else [torch.float32]
"""Triton serves float32; on a GPU, the CUDA kernels serve most of what has 16 bits."""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
MIXED = [
    Request(301),
    Request(900, chosen=9, pieces=3),
    Request(0),
    Request(33, pieces=2),
    Request(1000, chosen=30, pieces=1),
    Request(1, pieces=1),
]


def run(case: Case, times: int = 1) -> torch.Tensor:
    shape = case.shape
    expected = case.expected()
    case.to(DEVICE)
    decode = SparseDecode(case.size, shape.group, shape.key_dim, shape.dim, DEVICE)
    for buffer in decode.partials:
        buffer.fill_(math.nan)
    for _ in range(times):
        out = torch.full(expected.shape, math.nan, dtype=shape.dtype, device=DEVICE)
        assert decode.run(case.q, case.pool, case.step, case.scale, out) is out
        tolerance = TOLERANCE[shape.dtype]
        torch.testing.assert_close(
            out.float().cpu(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
        )
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [4, 8, 16, 32, 64, 128])
def test_block_sizes(block_size: int, dtype: torch.dtype) -> None:
    scale = max(1, block_size // 16)
    requests = [Request(r.tokens * scale, r.chosen, r.pieces) for r in MIXED]
    run(Case(Shape(block_size=block_size, heads=1, dtype=dtype), requests))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 2, 3, 8, 16, 20])
def test_groups(group: int, dtype: torch.dtype) -> None:
    run(Case(Shape(group=group, dtype=dtype), MIXED))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [16, 24, 64, 80, 96, 128, 192, 256])
def test_head_dims(dim: int, dtype: torch.dtype) -> None:
    run(Case(Shape(dim=dim, heads=1, dtype=dtype), MIXED))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rope", [0, 64])
def test_more_parts_than_programs(rope: int, dtype: torch.dtype) -> None:
    """And more of a row than there are slices to merge; on a GPU, with programs that cannot wait."""
    requests = [Request(700, chosen=20, pieces=3), Request(1300, pieces=40)] * (40 if GPU else 1)
    shape = Shape(heads=1, group=4, dim=512, rope=64) if rope else Shape(heads=1, dim=128, group=8)
    run(Case(replace(shape, dtype=dtype), requests), times=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kv_dtype", [None, torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("shared", [True, False])
def test_number_formats(dtype: torch.dtype, kv_dtype: torch.dtype | None, shared: bool) -> None:
    run(Case(Shape(dtype=dtype, kv_dtype=kv_dtype, shared=shared, dim=128), MIXED))


@pytest.mark.parametrize(
    ("values", "rope", "group", "dtype"),
    [
        (512, 64, 20, torch.bfloat16),
        (512, 64, 8, torch.float16),
        (512, 64, 33, torch.bfloat16),
        (512, 64, 128, torch.bfloat16),
        (128, 32, 4, torch.float32),
        (48, 16, 128, torch.bfloat16),
        (512, 64, 3, torch.float32),
    ],
)
def test_latents(values: int, rope: int, group: int, dtype: torch.dtype) -> None:
    shape = Shape(heads=1, dim=values, rope=rope, group=group, dtype=dtype, block_size=32)
    run(Case(shape, [Request(500, chosen=5, pieces=2), Request(301, pieces=3), Request(0)]))


@pytest.mark.skipif(not GPU, reason="the Triton kernel does not care")
@pytest.mark.parametrize("group", [20, 128])
@pytest.mark.parametrize("block_size", [8, 16, 64, 128])
@pytest.mark.parametrize("shared", [True, False])
def test_latents_in_blocks_of_any_size(block_size: int, group: int, shared: bool) -> None:
    """Of 32 tokens a stage of the kernel; parts without tokens, of one tile, and of many; two kv heads."""
    shape = Shape(
        heads=2, dim=512, rope=64, group=group, dtype=torch.bfloat16, block_size=block_size, shared=shared
    )
    scale = max(1, block_size // 16)
    requests = [Request(r.tokens * scale, r.chosen, r.pieces) for r in MIXED]
    run(Case(shape, [*requests, Request(3000, pieces=4), Request(64, pieces=2)]), times=2)


def test_every_row_owns_its_pages() -> None:
    run(Case(Shape(shared=False, heads=3), MIXED))


def test_a_step_leaves_nothing_behind_for_the_next() -> None:
    run(Case(Shape(), MIXED), times=3)


def test_views_of_queries_pool_and_result() -> None:
    case = Case(Shape(dtype=torch.float16, dim=64), MIXED)
    wide = torch.full((*case.q.shape[:2], 96), math.nan, dtype=case.q.dtype)
    wide[..., 16:80] = case.q
    case.q = wide[..., 16:80]
    stored = []
    for data in case.pool.stored:
        room = data.new_full((len(data), 3, 128), math.nan)
        room[:, :2, 64:] = data
        stored.append(room[:, :2, 64:])
    case.pool.stored = tuple(stored)
    run(case)


@pytest.mark.parametrize("rope", [0, 64])
def test_queries_beside_the_keys_and_values_of_a_token(rope: int) -> None:
    """As the product of all three weights leaves them: a token's row is longer than its queries."""
    dtype = torch.bfloat16 if GPU else torch.float16
    shape = Shape(heads=1, group=20, dim=512, rope=64) if rope else Shape(heads=2, group=4, dim=64)
    case = Case(replace(shape, dtype=dtype), MIXED)
    requests, heads, dim = case.q.shape
    wide = torch.full((requests, (heads + 4) * dim), math.nan, dtype=dtype)
    wide[:, : heads * dim] = case.q.flatten(1)
    case.q = wide[:, : heads * dim].view(requests, heads, dim)
    run(case)


def test_lists_shorter_than_planned_and_parts_without_tokens() -> None:
    case = Case(Shape(), [Request(900, chosen=20, pieces=7), Request(0), Request(700, chosen=10)])
    for row in (0, 1, 4):
        ids, _ = case.lists[row]
        tokens = {0: 17, 1: 16 * 9, 4: 0}[row]
        case.lists[row] = ids, tokens
        case.step.tokens[row] = tokens
    expected = case.expected()
    assert expected[4].isnan().all()
    case.to(DEVICE)
    decode = SparseDecode(case.size, 4, 64, 64, DEVICE)
    out = torch.full(expected.shape, math.nan, device=DEVICE)
    decode.run(case.q, case.pool, case.step, case.scale, out)
    assert not out[4].any()
    expected[4] = 0
    torch.testing.assert_close(out.cpu(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_results_do_not_depend_on_the_run() -> None:
    case = Case(Shape(dtype=torch.bfloat16), [Request(2000, pieces=9), Request(1500, chosen=60, pieces=5)])
    first = run(case, times=1)
    decode = SparseDecode(case.size, 4, 64, 64, DEVICE)
    for _ in range(3):
        again = decode.run(case.q, case.pool, case.step, case.scale, torch.empty_like(first))
        torch.testing.assert_close(again[: 2 * 2], first[: 2 * 2], rtol=0, atol=0)


REQUESTS = st.builds(
    Request,
    tokens=st.integers(0, 400),
    chosen=st.one_of(st.none(), st.integers(3, 20)),
    pieces=st.integers(1, 6),
)


@settings(deadline=None, max_examples=25)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=5),
    block_size=st.sampled_from([8, 16, 32]),
    heads=st.integers(1, 3),
    group=st.integers(1, 5),
    dim=st.sampled_from([16, 40, 64]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
)
def test_random_steps(
    requests: list[Request],
    block_size: int,
    heads: int,
    group: int,
    dim: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    shape = Shape(heads=heads, group=group, dim=dim, block_size=block_size, dtype=dtype)
    run(Case(shape, requests, seed))
