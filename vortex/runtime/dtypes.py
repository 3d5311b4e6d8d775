"""Names of number formats, and rounding to them."""

from __future__ import annotations

import torch

from vortex.config import Dtype

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
CLAMP: dict[Dtype, float] = {"fp8_e4m3": 448.0, "fp8_e5m2": 57344.0}


def rounded(x: torch.Tensor, dtype: Dtype) -> torch.Tensor:
    """`x` as float32, with the values that storing it as `dtype` leaves. The fp8 formats saturate."""
    if dtype == "float32":
        return x.float()
    limit = CLAMP.get(dtype)
    if limit is not None:
        x = x.clamp(-limit, limit)
    return x.to(TORCH_DTYPES[dtype]).float()


def itemsize(dtype: Dtype) -> int:
    """Bytes of one number."""
    return TORCH_DTYPES[dtype].itemsize
