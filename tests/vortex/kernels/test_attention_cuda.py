"""Which shapes the CUDA kernels serve, and the source they are compiled from."""

from __future__ import annotations

import pytest
import torch

from tests.vortex.kernels.attention_steps import Case, Request, Shape
from vortex.kernels.attention_cuda import Variant, serves

BF16, FP16, F32 = torch.bfloat16, torch.float16, torch.float32
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


@pytest.mark.parametrize(
    ("variant", "served"),
    [
        *((Variant(BF16, BF16, dim, 0, 4), True) for dim in (32, 64, 80, 96, 128, 192, 256)),
        *((Variant(FP16, kv, 128, 0, 16), True) for kv in (FP16, E4M3, E5M2)),
        (Variant(BF16, E4M3, 80, 0, 4), False),  # columns of fp8 come in pairs of 16
        (Variant(BF16, BF16, 256, 0, 16), False),  # more registers than there are
        (Variant(BF16, BF16, 128, 0, 17), False),
        (Variant(BF16, BF16, 24, 0, 4), False),
        (Variant(BF16, FP16, 128, 0, 4), False),
        (Variant(F32, F32, 128, 0, 4), False),
        *((Variant(BF16, BF16, 576, 512, group), True) for group in (1, 16, 20, 128)),
        (Variant(BF16, BF16, 640, 512, 16), True),
        (Variant(BF16, BF16, 640, 512, 20), False),  # more shared memory than there is
        (Variant(BF16, E4M3, 576, 512, 20), False),
        (Variant(BF16, BF16, 160, 128, 8), False),
    ],
)
def test_shapes(variant: Variant, served: bool) -> None:
    assert variant.serves == served


def test_shared_memory_holds_the_ring() -> None:
    for dim in (32, 64, 80, 96, 128, 192, 256):
        for kv in (BF16, E4M3):
            variant = Variant(BF16, kv, dim, 0, 4)
            if variant.serves:
                settings = dict(
                    line.split()[1:3] for line in variant.source.split("\n")[:8] if "#def" in line
                )
                tile = 16 * (dim * kv.itemsize + 16)
                assert int(settings["WARPS"]) * int(settings["STAGES"]) * 2 * tile <= 216 << 10
                assert int(settings["STAGES"]) >= 3


def test_a_source_stands_alone() -> None:
    for variant in (Variant(BF16, E5M2, 64, 0, 2), Variant(BF16, BF16, 576, 512, 20)):
        assert '#include "' not in variant.source
        assert "struct Args" in variant.source


def test_tensors_of_the_cpu_are_not_served() -> None:
    case = Case(Shape(dtype=BF16), [Request(50)])
    assert not serves(case.q, case.pool, case.q, 16)
