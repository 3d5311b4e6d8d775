"""The plan of a step: counts, the place of the reserved blocks, selection keys."""

from __future__ import annotations

import numpy as np
import torch

from vortex.budget import parse_policy
from vortex.config import VortexConfig
from vortex.runtime.plan import SparseRows, make_plan
from vortex.runtime.select import top_blocks

CPU = torch.device("cpu")


def test_the_current_block_counts_and_small_rows_are_dense() -> None:
    config = VortexConfig(topk_val=3, block_size=16)
    plan = make_plan(np.array([80, 81, 96, 97, 1]), 16, config, None)
    assert plan.n.tolist() == [5, 6, 6, 7, 1]
    assert plan.chosen.tolist() == [5, 5, 5, 5, 1]
    assert plan.sparse.tolist() == [False, True, True, True, False]


def test_block_lists_are_bos_selection_eos_with_the_true_last_block_last() -> None:
    config = VortexConfig(
        topk_val=2, block_size=16, block_reserved_bos=2, block_reserved_eos=3, topk_ratio=0.5
    )
    plan = make_plan(np.array([16 * 12 - 5, 16 * 30]), 16, config, None)
    assert plan.chosen.tolist() == [7, 15]
    rows = SparseRows(plan, 1, 16, config, CPU)
    assert rows.planned.host_k.tolist() == [2, 10]
    picked = torch.arange(4, 4 + rows.planned.most).repeat(2, 1)
    listed = rows.place(picked)
    first, second = listed.positions.tolist()
    assert first == [0, 1, 4, 5, 9, 10, 11] + [11] * 8
    assert second == [0, 1, *range(4, 14), 27, 28, 29]
    assert listed.tokens.tolist() == [7 * 16 - 5, 15 * 16]
    assert listed.full == 107
    assert listed.beyond.sum(1).tolist() == [15 * 16 - 107, 0]
    assert [row.nonzero().ravel().tolist() for row in rows.valid] == [list(range(2, 9)), list(range(2, 27))]


def test_a_union_holds_each_block_once_and_is_as_long_as_it_is() -> None:
    config = VortexConfig(topk_val=2, block_size=16, block_reserved_bos=1, block_reserved_eos=2)
    plan = make_plan(np.array([16 * 12 - 5, 16 * 30, 16 * 7 - 1]), 16, config, None)
    rows = SparseRows(plan, 1, 16, config, CPU)
    wide, narrow = rows.quota(6), rows.quota(2)
    assert wide.host_k.tolist() == [6, 6, 4]
    by_one = torch.tensor([[3, 5, 1, 2, 7, 8], [20, 4, 5, 6, 7, 8], [4, 1, 2, 3, 0, 0]])
    by_two = torch.tensor([[9, 3], [20, 4], [1, 2]])
    listed = rows.union([(by_one, wide), (by_two, narrow)])
    assert listed.positions[:, :10].tolist() == [
        [0, 1, 2, 3, 5, 7, 8, 9, 10, 11],
        [0, 4, 5, 6, 7, 8, 20, 28, 29, 29],
        [0, 1, 2, 3, 4, 5, 6, 6, 6, 6],
    ]
    assert listed.tokens.tolist() == [10 * 16 - 5, 9 * 16, 7 * 16 - 1]
    assert (~listed.beyond).sum(1).tolist() == listed.host_tokens.tolist()


def test_a_policy_rules_the_plan() -> None:
    policy = parse_policy("return cached_block_len > 100 ? 4 : cached_block_len;")
    config = VortexConfig(topk_val=9, block_size=16)
    plan = make_plan(np.array([1600, 1616, 1617]), 16, config, policy)
    assert plan.chosen.tolist() == [100, 4, 4]


def test_selection_orders_floats_exactly() -> None:
    inf, nan = float("inf"), float("nan")
    values = [inf, 3.0, 1e-45, 0.0, -0.0, -1e-45, -3.0, -inf, nan]
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    scores = torch.tensor(values)[order][None]
    picked = top_blocks(scores, torch.ones_like(scores, dtype=torch.bool), len(values))[0]
    got = scores[0, picked]
    expected = torch.tensor(values).nan_to_num(0.0, inf, -inf)
    assert torch.equal(got[:-1], expected[:-1])
    assert got[-1].isnan()
    zeros = [place for place in picked.tolist() if scores[0, place] == 0.0]
    assert zeros == sorted(zeros)
