"""Pages, block tables and reading through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vortex.config import VortexConfig
from vortex.graph import Geometry
from vortex.runtime.attention import Workspace
from vortex.runtime.plan import SparseRows, make_plan
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.table import BlockTable
from vortex.targets import TARGETS

CPU = torch.device("cpu")


def shuffled(rows: int, pages: int) -> PageTable:
    order = np.random.default_rng(0).permutation(rows * pages).reshape(rows, pages)
    return PageTable(order, np.full(rows, pages))


@pytest.mark.parametrize("block_size", [1, 8, 16, 128])
def test_blocks_and_slots_name_the_same_tokens(block_size: int) -> None:
    pages = shuffled(3, 4)
    blocks = pages.blocks(block_size)
    for position in (0, 7, PAGE - 1, PAGE, 3 * PAGE + 55):
        block = blocks[:, position // block_size]
        assert (block * block_size + position % block_size == pages.slots(np.full(3, position))).all()


def test_contiguous_rows_are_read_in_place_and_others_gathered() -> None:
    data = torch.arange(12 * 8).float().view(-1, 1, 1)  # 12 pages of 8 blocks of 16 tokens
    even = BlockTable(PageTable.contiguous(np.array([0, 4, 8]), np.array([4, 4, 4])), 16, CPU)
    uneven = BlockTable(PageTable.contiguous(np.array([0, 5, 8]), np.array([4, 3, 4])), 16, CPU)
    scattered = BlockTable(shuffled(3, 4), 16, CPU)
    for table, in_place in ((even, True), (uneven, False), (scattered, False)):
        read = table.read(data, 0, 3, 20)
        assert torch.equal(read[..., 0, 0].long(), table.ids[:, :20])
        assert (read.untyped_storage().data_ptr() == data.untyped_storage().data_ptr()) == in_place
    one = uneven.read(data, 1, 2, 24)
    assert torch.equal(one[..., 0, 0].long(), uneven.ids[1:2, :24])


def test_a_view_never_leaves_the_pool() -> None:
    """The last row is shorter than the widest of its group: the view would end past the data."""
    data = torch.arange(6 * 8).float().view(-1, 1, 1)
    table = BlockTable(PageTable.contiguous(np.array([0, 3]), np.array([4, 3])), 16, CPU)
    assert table.read(data, 0, 2, 32).shape == (2, 32, 1, 1)


def test_append_gives_pages_to_some_rows() -> None:
    pages = PageTable.contiguous(np.array([0, 2]), np.array([2, 2])).append(np.array([1]), np.array([9]))
    assert pages.counts.tolist() == [2, 3]
    assert pages.pages.tolist() == [[0, 1, 0], [2, 3, 9]]
    assert pages.runs().tolist() == [0, -1]
    assert pages.slots(np.array([5, 2 * PAGE + 5])).tolist() == [5, 9 * PAGE + 5]


def test_growth_keeps_slots_and_starts_with_zeros() -> None:
    pool = KVPool.allocate(2, 4, torch.float32, CPU)
    pool.write(torch.tensor([5, 200]), torch.ones(2, 4), torch.full((2, 4), 2.0))
    pool.grow(3)
    assert pool.pages >= 3
    assert pool.k[5].tolist() == [1.0] * 4
    assert pool.v[200].tolist() == [2.0] * 4
    assert not pool.k[2 * PAGE :].any()


def test_the_value_of_a_latent_is_a_view_of_it() -> None:
    pool = KVPool.allocate(1, 6, torch.float32, CPU, kv_lora_rank=4)
    pool.write(torch.tensor([17]), torch.arange(6.0)[None])
    pool.grow(2)
    assert len(pool.stored) == 1
    assert pool.token_bytes == 6 * 4
    k, v = pool.blocks(16)
    assert (k.shape, v.shape) == ((16, 16, 6), (16, 16, 4))
    assert k[1, 1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert v[1, 1].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert v.untyped_storage().data_ptr() == pool.stored[0].untyped_storage().data_ptr()
    assert pool.geometry(16, 8) == Geometry.mla(16, 4, 2, 8)


@pytest.mark.parametrize("scattered", [False, True])
def test_attention_over_latents_equals_attention_over_copies(scattered: bool) -> None:
    """Sparse and dense, rows in place and gathered, against K and V stored apart."""
    generator = torch.Generator().manual_seed(0)
    data, q = torch.randn(8 * PAGE, 12, generator=generator), torch.randn(2, 5, 12, generator=generator)
    latent, apart = KVPool(data, kv_lora_rank=8), KVPool(data, torch.nn.functional.pad(data[:, :8], (0, 4)))
    pages = shuffled(2, 4) if scattered else PageTable.contiguous(np.array([0, 4]), np.array([4, 4]))
    config, lengths = VortexConfig(topk_val=3, block_size=16), np.array([300, 470])
    rows = SparseRows(make_plan(lengths, 16, config, None), 1, 16, config, CPU)
    listed = rows.place(torch.tensor([[2, 5, 9], [20, 7, 8]]))
    blocks = BlockTable(pages, 16, CPU).ids.gather(1, listed.positions)
    for target in TARGETS.values():
        attended = [
            (
                target.attend(q, pool, blocks, listed, 16, 0.3, Workspace()),
                target.attend_dense(q, pool, pages, lengths, 1, 0.3),
            )
            for pool in (latent, apart)
        ]
        for ours, full in zip(*attended, strict=True):
            torch.testing.assert_close(ours, full[..., :8])
