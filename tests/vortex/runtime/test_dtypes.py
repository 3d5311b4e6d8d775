"""Rounding to each number format, against the format's definition."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from vortex.config import Dtype
from vortex.runtime.dtypes import rounded

FORMATS: dict[Dtype, tuple[int, int, float]] = {  # bits of the exponent, of the mantissa, largest number
    "bfloat16": (8, 7, 3.3895313892515355e38),
    "float16": (5, 10, 65504.0),
    "fp8_e4m3": (4, 3, 448.0),
    "fp8_e5m2": (5, 2, 57344.0),
}


def numbers(exponent: int, mantissa: int, largest: float) -> np.ndarray:
    """All finite numbers from 0 up; a number's place is its code."""
    bias, steps = 2 ** (exponent - 1) - 1, 2**mantissa
    codes = np.arange(2**exponent * steps)
    power, fraction = codes // steps, codes % steps / steps
    values = np.where(power == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (power - bias))
    return values[values <= largest]


@pytest.mark.parametrize("dtype", FORMATS)
def test_nearest_number_ties_to_even(dtype: Dtype) -> None:
    exponent, mantissa, largest = FORMATS[dtype]
    table = numbers(exponent, mantissa, largest)
    assert table[-1] == largest
    middles = (table[1:] + table[:-1]) / 2
    around = [np.nextafter(middles.astype(np.float32), np.float32(to)) for to in (0, np.inf)]
    x = np.concatenate([table, middles, *around]).astype(np.float32)
    x = x[x.astype(np.float64) <= largest]
    above = np.searchsorted(table, x)
    below = np.maximum(above - 1, 0)
    up, down = table[above] - x, x - table[below]
    nearest = np.where((up < down) | ((up == down) & (above % 2 == 0)), table[above], table[below])
    found = rounded(torch.from_numpy(np.concatenate([x, -x])), dtype)
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), np.concatenate([nearest, -nearest]).astype(np.float32))


def test_large_numbers() -> None:
    """The fp8 formats saturate, also at infinity; the others overflow. NaN stays."""
    x = torch.tensor([1e30, 3.4e38, torch.inf, torch.nan])
    for dtype, (*_, largest) in FORMATS.items():
        overflow = largest if dtype.startswith("fp8") else torch.inf
        first = 1e30 if dtype == "bfloat16" else overflow
        found = rounded(x, dtype)
        torch.testing.assert_close(found[0], torch.tensor(first), rtol=2**-8, atol=0)
        assert found[1:3].tolist() == [overflow, overflow]
        assert rounded(-x, dtype)[1:3].tolist() == [-overflow, -overflow]
        assert found[3].isnan()


def test_float32_is_left_alone() -> None:
    x = torch.tensor([1e-45, 0.1, -3.4e38, torch.inf])
    assert torch.equal(rounded(x, "float32"), x)
    assert {*FORMATS, "float32"} == set(get_args(Dtype))
