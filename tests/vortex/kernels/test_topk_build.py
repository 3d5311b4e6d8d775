"""The selection's CUDA source compiles ahead of time, without a GPU."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vortex.kernels import cuda
from vortex.kernels.topk import built

INVALID_CONFIGURATION = 9


@pytest.mark.parametrize(
    ("target", "dtype", "selections"),
    [("sm_90a", torch.bfloat16, 1), ("sm_100a", torch.float32, 2), ("sm_90a", torch.float16, 2)],
)
def test_it_compiles_and_knows_its_shapes(target: str, dtype: torch.dtype, selections: int) -> None:
    library = cuda.load(built(dtype, selections, target))
    assert library.topk(None, ctypes.create_string_buffer(256), 333, 1, 1, None) == INVALID_CONFIGURATION
