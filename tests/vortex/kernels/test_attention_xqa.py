"""`attention_backend="trtllm"`: the pages and lengths that XQA is given, what is refused, and on a GPU
(`VORTEX_DEVICE=cuda`, with FlashInfer) its results."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch

from tests.vortex.kernels.attention_steps import DEVICE, Case, Request, Shape
from vortex.errors import ConfigError
from vortex.kernels.xqa import XqaDecode

REQUESTS = [
    Request(301),
    Request(900, chosen=9),
    Request(0),
    Request(33),
    Request(1000, chosen=30),
    Request(1),
]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("block_size", [16, 64])
def test_pages_of_a_row_hold_its_tokens(shared: bool, block_size: int) -> None:
    requests = [Request(r.tokens * block_size // 16, r.chosen) for r in REQUESTS]
    case = Case(Shape(heads=2, shared=shared, block_size=block_size, dtype=torch.bfloat16), requests)
    expected = {row: case.slots(row) for row in case.lists}
    case.to(DEVICE)
    xqa = XqaDecode(case.size, 4, 64, 64, DEVICE)
    xqa.list(case.step)
    for view, stored in zip(xqa.views(case.pool), (case.pool.k, case.pool.v), strict=True):
        whole = stored if shared else stored[:, None]
        for row, (slots, heads) in expected.items():
            pages, length = xqa.tables(row)
            assert length == max(len(slots), 1)
            found = view[pages].reshape(-1, 64)[: len(slots)]
            right = whole[torch.from_numpy(slots).to(DEVICE), torch.from_numpy(heads).to(DEVICE)]
            torch.testing.assert_close(found, right, rtol=0, atol=0)


@pytest.mark.parametrize("planned", [4, 40])
def test_a_union_lists_more_or_fewer_blocks_than_were_planned(planned: int) -> None:
    case = Case(Shape(heads=2, dtype=torch.bfloat16), [Request(900, chosen=9), Request(900, chosen=30)])
    case.to(DEVICE)
    xqa = XqaDecode(case.size, 4, 64, 64, DEVICE)
    xqa.list(case.step)
    listed = [xqa.tables(row)[0].clone() for row in case.lists]
    xqa._pages.fill_(-1)
    case.step.chosen[:2] = planned
    xqa.list(case.step)
    for row, pages in zip(case.lists, listed, strict=True):
        assert xqa.tables(row)[0].tolist() == pages.tolist()
        assert (xqa._pages[row, len(pages) :] == -1).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(dim=64, rope=16, heads=1, dtype=torch.bfloat16), "latents"),
        (Shape(dtype=torch.float32), "not torch.float32 by"),
        (Shape(dtype=torch.bfloat16, kv_dtype=torch.float8_e5m2), "by torch.float8_e5m2"),
        (Shape(dtype=torch.bfloat16, block_size=8), "16, 32, 64, 128 tokens, not 8"),
        (Shape(dtype=torch.bfloat16, dim=40), "not 40"),
    ],
)
def test_what_it_does_not_serve_is_refused(shape: Shape, message: str) -> None:
    case = Case(shape, [Request(50)])
    xqa = XqaDecode(case.size, shape.group, shape.key_dim, shape.dim, "cpu")
    with pytest.raises(ConfigError, match=f"attention_backend='trtllm'.*{message}"):
        xqa.check(case.q, case.pool)


def test_a_pool_with_gaps_is_refused() -> None:
    case = Case(Shape(dtype=torch.bfloat16), [Request(50)])
    case.pool.stored = tuple(torch.cat((x, x), 1)[:, :2] for x in case.pool.stored)
    with pytest.raises(ConfigError, match="whose slots hold all heads"):
        XqaDecode(case.size, 4, 64, 64, "cpu").views(case.pool)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="XQA runs on GPUs")
@pytest.mark.skipif(find_spec("flashinfer") is None, reason="XQA comes with FlashInfer")
def test_results() -> None:
    case = Case(Shape(heads=2, dim=128, dtype=torch.bfloat16), REQUESTS)
    expected = case.expected()
    case.to(DEVICE)
    out = torch.full(expected.shape, math.nan, dtype=torch.bfloat16, device=DEVICE)
    XqaDecode(case.size, 4, 128, 128, DEVICE).run(case.q, case.pool, case.step, case.scale, out)
    there = ~expected.isnan()
    torch.testing.assert_close(out.float().cpu()[there], expected[there], rtol=2e-2, atol=2e-2)
