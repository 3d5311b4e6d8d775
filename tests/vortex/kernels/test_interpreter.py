"""Kernels under Triton's interpreter, corrected, against PyTorch."""

from __future__ import annotations

import pytest
import torch

from vortex.kernels.triton_setup import interpreted, tl, triton

pytestmark = pytest.mark.skipif(not interpreted(), reason="kernels are compiled here")
EDGES = [0.0, -0.0, 1e-45, 3e-39, 65504.0, 65520.0, 1e38, 3.4e38, 447.0, 465.0, 57345.0, 1e-7, 2**-14]


@triton.jit
def _cast(x, y, n, size: tl.constexpr):
    at = tl.arange(0, size)
    tl.store(y + at, tl.load(x + at, mask=at < n).to(y.dtype.element_ty), mask=at < n)


@triton.jit
def _product(x, y, out, m: tl.constexpr, n: tl.constexpr, k: tl.constexpr):
    a = tl.load(x + tl.arange(0, m)[:, None] * k + tl.arange(0, k)[None, :])
    b = tl.load(y + tl.arange(0, k)[:, None] * n + tl.arange(0, n)[None, :])
    tl.store(out + tl.arange(0, m)[:, None] * n + tl.arange(0, n)[None, :], tl.dot(a, b))


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _fold(x, best, running, rows: tl.constexpr, cols: tl.constexpr):
    at = tl.arange(0, rows)[:, None] * cols + tl.arange(0, cols)[None, :]
    values = tl.load(x + at)
    tl.store(best + tl.arange(0, rows), tl.reduce(values, 1, _larger))
    tl.store(running + at, tl.associative_scan(values, 1, _larger))


def numbers(count: int) -> torch.Tensor:
    spread = torch.randn(count) * torch.logspace(-9, 9, count)
    edges = torch.tensor(EDGES)
    special = torch.tensor([torch.inf, -torch.inf, torch.nan])
    return torch.cat((spread, edges, -edges, special))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_conversions_round_to_the_nearest(dtype: torch.dtype) -> None:
    x = numbers(500)
    found, back = torch.zeros(len(x), dtype=dtype), torch.zeros(len(x))
    _cast[(1,)](x, found, len(x), 1024)
    most = torch.finfo(dtype).max
    right = (x.clamp(-most, most) if dtype.itemsize == 1 else x).to(dtype)
    torch.testing.assert_close(found.float(), right.float(), rtol=0, atol=0, equal_nan=True)
    _cast[(1,)](right, back, len(x), 1024)
    torch.testing.assert_close(back, right.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_products_are_of_numbers(dtype: torch.dtype) -> None:
    x, y, out = torch.randn(16, 32).to(dtype), torch.randn(32, 8).to(dtype), torch.zeros(16, 8)
    _product[(1,)](x, y, out, 16, 8, 32)
    torch.testing.assert_close(out, x.float() @ y.float())


def test_reductions_and_scans_with_a_function_of_ones_own() -> None:
    x, best, running = torch.randn(8, 64), torch.zeros(8), torch.zeros(8, 64)
    x[3, 10] = torch.nan
    _fold[(1,)](x, best, running, 8, 64)
    torch.testing.assert_close(best, x.amax(1), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(running, x.cummax(1).values, rtol=0, atol=0, equal_nan=True)
