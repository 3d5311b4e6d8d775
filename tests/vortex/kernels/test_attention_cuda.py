"""Which shapes the CUDA kernels serve, and the source they are compiled from."""

from __future__ import annotations

from dataclasses import replace

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
        (Variant(BF16, BF16, 640, 512, 128, True), True),
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


@pytest.mark.parametrize("dim", [512, 576, 640])
def test_shared_memory_holds_queries_and_ring(dim: int) -> None:
    for group in (1, 8, 20, 33, 64, 128):
        variant = Variant(BF16, BF16, dim, 512, group, True)
        assert variant.by_warpgroups
        stages = int(variant.source.split("#define STAGES ")[1].split()[0])
        weights = 64 * 128
        used = (8 * variant.head_tiles + 32 * stages) * 2 * dim + weights + 4 * 64 * 4 + 512
        assert stages >= 3
        assert used <= 227 << 10


def test_which_latents_go_to_warpgroups() -> None:
    assert not Variant(BF16, BF16, 576, 512, 20).by_warpgroups
    assert not Variant(BF16, BF16, 320, 256, 20, True).by_warpgroups
    assert not Variant(BF16, BF16, 128, 0, 4, True).by_warpgroups
    assert Variant(FP16, FP16, 576, 512, 20, True).by_warpgroups


def test_a_source_stands_alone() -> None:
    latent = Variant(BF16, BF16, 576, 512, 20)
    for variant in (Variant(BF16, E5M2, 64, 0, 2), latent, replace(latent, warpgroups=True)):
        assert '#include "' not in variant.source
        assert "struct Args" in variant.source


def test_tensors_of_the_cpu_are_not_served() -> None:
    case = Case(Shape(dtype=BF16), [Request(50)])
    out = case.q.view(case.size.rows, -1, case.q.shape[-1])
    assert not serves(case.q, case.pool, out, 16)
