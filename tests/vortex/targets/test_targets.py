"""Every target: all flows, ties and NaN, what attention reads, attention of long rows."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from tests.vortex.targets.agreement import DEVICE, SLOW, check_case
from tests.vortex.targets.cases import HEAD_DIM, HEADS, planned, ragged_rows
from tests.vortex.targets.generated import NAMED, drawn
from vortex.config import VortexConfig
from vortex.runtime.attention import Workspace
from vortex.runtime.pool import KVPool
from vortex.targets import TARGETS, get_target

OTHERS = [name for name in TARGETS if name != "reference"]
SCALE = HEAD_DIM**-0.5


@pytest.mark.parametrize("flow", NAMED)
@pytest.mark.parametrize("target", OTHERS)
def test_flows(target: str, flow: str) -> None:
    """The flows that ship with the package and those of `cases`, each on a few batches."""
    for number in range(1 if target in SLOW else 3):
        check_case(drawn(Random(number), flow), target, DEVICE)


@pytest.mark.parametrize("target", TARGETS)
def test_selection_ties_and_nan(target: str) -> None:
    rows = ragged_rows(0, False, lengths=(16 * 12,))
    given, _, _ = planned(rows, VortexConfig(topk_val=4, block_size=16))
    assert given.planned.most == 4
    nan, inf = float("nan"), float("inf")
    scores = torch.tensor(
        [
            [9.0, 0.0, 1.0, 1.0, -0.0, 0.0, 1.0, nan, nan, -1.0, 0.0, 9.0],
            [nan, nan, -inf, nan, nan, nan, -inf, nan, nan, nan, nan, inf],
        ]
    )
    picked = get_target(target).select(scores, given, given.planned)
    assert set(picked[0].tolist()) == {1, 2, 3, 6}
    assert set(picked[1].tolist()) == {1, 2, 3, 6}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scattered", [False, True])
def test_sparse_attention_reads_only_the_chosen_blocks(target: str, scattered: bool) -> None:
    rows = ragged_rows(3, scattered)
    config = VortexConfig(topk_val=4, block_size=16)
    given, table, q = planned(rows, config)
    listed = given.place(
        torch.rand(len(given), given.blocks).masked_fill(~given.valid, -1).topk(given.planned.most).indices
    )
    blocks = table.ids.gather(1, listed.positions)
    work = Workspace()
    backend = get_target(target)
    clean = backend.attend(q, rows.pool, blocks, listed, 16, SCALE, work).clone()

    read = torch.zeros(rows.pool.k.shape[0] // 16, dtype=torch.bool)
    read[blocks.ravel()] = True
    for data in rows.pool.blocks(16):
        data[~read] = torch.nan
    poisoned = backend.attend(q, rows.pool, blocks, listed, 16, SCALE, work)
    assert torch.equal(poisoned, clean)
    assert int(read.sum()) == int((given.planned.host_k + 2).sum())  # bos + k + eos blocks per row, no more

    for data in rows.pool.blocks(16):
        data[blocks[:, 1]] = torch.nan
    assert backend.attend(q, rows.pool, blocks, listed, 16, SCALE, work).isnan().all()


@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_attention_agrees(target: str, scattered: bool, dtype: torch.dtype, tolerance: float) -> None:
    rows = ragged_rows(4, scattered)
    pool = KVPool(rows.pool.k.to(dtype), rows.pool.v.to(dtype))
    given, table, q = planned(rows, VortexConfig(topk_val=3, block_size=16, topk_ratio=0.25))
    listed = given.place(
        torch.rand(len(given), given.blocks).masked_fill(~given.valid, -1).topk(given.planned.most).indices
    )
    blocks = table.ids.gather(1, listed.positions)
    ours, expected = (
        get_target(name).attend(q.to(dtype), pool, blocks, listed, 16, SCALE, Workspace())
        for name in (target, "reference")
    )
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    lengths = np.repeat(rows.lengths, HEADS)
    ours, expected = (
        get_target(name).attend_dense(rows.q.to(dtype), pool, rows.pages, lengths, HEADS, SCALE)
        for name in (target, "reference")
    )
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
