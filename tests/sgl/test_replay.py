"""Decode steps as a CUDA graph is captured and replayed for them, without the graph: padded batches, warm-up
steps that leave no trace, a page table that changes before the layers run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.sgl.models import settings
from vortex.engine.sgl.deployed import Deployed, Room
from vortex.engine.sgl.on_device import DeviceDeployed
from vortex.engine.sgl.on_host import HostDeployed
from vortex.errors import ConfigError
from vortex.graph.geometry import Geometry
from vortex.runtime.pool import KVPool

HEADS, GROUP, DIM, PAGE, BLOCK, LAYER = 2, 4, 16, 16, 8, 3
PAGES, REQUESTS, CONTEXT = 40, 6, 160
LENGTHS = (133, 20, 64)
"""Sparse; dense; sparse, and its last token completes a block."""
SCALE = DIM**-0.5


class Mode:
    """Of SGLang's ForwardMode, what is asked for."""

    def is_idle(self) -> bool:
        return False

    def is_decode(self) -> bool:
        return True


@pytest.fixture(scope="module")
def stored() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shape = PAGES * PAGE, HEADS, DIM
    return tuple(torch.randn(shape, generator=generator) for _ in range(2))


def deployed(kind: type[Deployed], stored: tuple[torch.Tensor, ...], name: str, **fields: object) -> Deployed:
    config = settings(name, block_size=BLOCK, **fields)
    geometry = Geometry(BLOCK, DIM, GROUP)
    room = Room(REQUESTS, HEADS, PAGE, CONTEXT, torch.float32, torch.device("cpu"))
    made = kind(config, config.load_graph(geometry), geometry, {LAYER: KVPool(*stored)}, room)
    made.summarise_all()
    return made


def table() -> torch.Tensor:
    """Slots of the tokens of all requests SGLang numbers, on pages of their own; number 0 is padding."""
    pages = torch.randperm(PAGES - 1, generator=torch.Generator().manual_seed(1)) + 1
    found = torch.zeros((REQUESTS, CONTEXT), dtype=torch.int32)
    per_request = CONTEXT // PAGE
    for number in range(1, 1 + len(LENGTHS)):
        own = pages[(number - 1) * per_request : number * per_request]
        found[number] = (own[:, None] * PAGE + torch.arange(PAGE)).flatten()
    return found


def batch(padding: int = 0) -> Any:
    """What SGLang hands over for a replay, or for an eager step."""
    lengths = torch.tensor([*LENGTHS, *[1] * padding])
    numbers = torch.tensor([2, 1, 3, *[0] * padding])
    slots = table()[numbers[: len(LENGTHS)], lengths[: len(LENGTHS)] - 1].long()
    return SimpleNamespace(
        forward_mode=Mode(),
        batch_size=len(lengths),
        seq_lens=lengths,
        seq_lens_cpu=lengths,
        req_pool_indices=numbers,
        out_cache_loc=slots,
    )


def queries(count: int) -> torch.Tensor:
    return torch.randn((count, HEADS * GROUP, DIM), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ["gqa_quest_sparse_attention", "running_avg_block_sparse"])
def test_a_replay_is_the_step(stored: tuple[torch.Tensor, ...], name: str) -> None:
    host, device = (deployed(kind, stored, name) for kind in (HostDeployed, DeviceDeployed))
    q, real = queries(len(LENGTHS) + 2), len(LENGTHS)
    host.begin(batch(), real, table())
    expected = host.attend(LAYER, q[:real], SCALE)
    device.begin(batch(2), 0, table())  # as before a capture
    for _ in range(3):  # warm-up, and the capture itself
        assert not device.attend(LAYER, q, SCALE).any()
    pages = table()
    device.begin(batch(2), real, pages)
    pages.random_(0, PAGES * PAGE)  # of the next batch, which SGLang prepares meanwhile
    found = device.attend(LAYER, q, SCALE)
    torch.testing.assert_close(found[:real], expected, rtol=1e-4, atol=1e-5)
    assert not found[real:].any()
    ours, theirs = device.report(), host.report()
    assert ours.model_copy(update={"target": "torch"}) == theirs


def test_blocks_that_a_prompt_completes(stored: tuple[torch.Tensor, ...]) -> None:
    """The device finds them without counting them: what is left over is the block of padding."""
    host, device = (
        deployed(kind, stored, "block_sparse_attention") for kind in (HostDeployed, DeviceDeployed)
    )
    slots = torch.cat((table()[1, 5:70], table()[2, :31])).long()
    exact, padded = (one.finished_blocks(slots, 2) for one in (host, device))
    assert exact is not None
    assert padded is not None
    assert padded[: len(exact)].tolist() == exact.tolist()
    assert set(padded[len(exact) :].tolist()) <= set(range(HEADS))
    assert device.report().blocks_summarised == len(exact)


def test_xqa_needs_a_gpu(stored: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ConfigError, match="vortex_attention_backend: 'trtllm' is XQA, and it needs a GPU"):
        deployed(DeviceDeployed, stored, "block_sparse_attention", attention_backend="trtllm")
