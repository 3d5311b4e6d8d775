"""The device path: sessions on it give what the reference target gives, from blocks that its own scores
rank first. On the CPU its kernels run under Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tests.vortex.targets.generated import MLA_FLOWS, NAMED, Case
from vortex.config import VortexConfig
from vortex.graph import FlowGraph, Geometry
from vortex.ops import Row
from vortex.ops.selection import top
from vortex.runtime import session as sessions
from vortex.runtime.batch import DeviceBatch
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.hooks import Hooks
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession
from vortex.targets.base import LayerCache

DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))
SCALE = 0.2
QUICK = {
    "gqa_quest_sparse_attention", "lserve_centroid_mla", "running_avg_block_sparse", "softmax_over_blocks",
    "trading_places", "early_reads",
}  # fmt: skip
LENGTHS = (142, 31, 127)
"""Tokens in the first step: two sparse requests and a dense one, which complete blocks in the third step or
the second."""


@pytest.fixture(autouse=True)
def device_path_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "runs_on_device", lambda target, device, hooks: target == "triton")


def case_of(flow: str, **changes: object) -> Case:
    given: dict[str, object] = {
        "flow": flow, "lengths": LENGTHS, "steps": 3, "dtype": "float32", "topk_val": 4, "eos": 2,
        "latent": (32, 16) if flow in MLA_FLOWS else None, "layer": 1, "scattered": True, "seed": 11,
    }  # fmt: skip
    return Case(**{**given, **changes})  # type: ignore[arg-type]


class Run:
    """A session over a case's tokens, of which those of the prompts are in the pools. Every layer has the
    same ones; new tokens are random. `requests` are still there."""

    def __init__(self, case: Case, target: str, skip: tuple[int, ...] = (0,)) -> None:
        self.case, self.batch = case, case.batch(DEVICE)
        self.requests = np.arange(len(case.lengths))
        config = case.config.model_copy(update={"layers_skip": skip, "dense_crossover": False})
        pools = [case.batch(DEVICE).pool for _ in range(case.layer + 1)]
        prompts = np.array(case.lengths) - 1
        counts = np.repeat(-(-prompts // PAGE), case.heads)
        pages = PageTable(self.batch.pages.pages[:, : counts.max()], counts)
        self.session = DecodeSession(
            pools, pages, prompts, case.group, case.graph, config, target, Hooks(), growable=True
        )

    def step(self, number: int, layer: int | None = None) -> torch.Tensor:
        """The output of attention, `[requests, heads * group, value_dim]`."""
        self.session.begin_step()
        case, dim = self.case, self.batch.q.shape[-1]
        rows = torch.from_numpy((self.requests[:, None] * case.heads + np.arange(case.heads)).ravel())
        random = torch.Generator().manual_seed(number)
        new = torch.randn(2, len(case.lengths) * case.heads, dim, generator=random)[:, rows]
        k, v = new.view(2, -1, case.heads, dim).to(DEVICE, self.batch.pool.k.dtype)
        q = self.batch.q[number][rows.to(DEVICE)].reshape(len(self.requests), -1, dim)
        layer = case.layer if layer is None else layer
        return self.session.attend(layer, q, k, None if case.latent else v, SCALE)

    def keep(self, alive: list[int]) -> None:
        self.session.keep(np.array(alive, dtype=np.int64))
        self.requests = self.requests[alive]

    @property
    def device(self) -> DeviceBatch:
        assert self.session.on_device is not None
        return self.session.on_device


def lists_of(run: Run) -> Iterator[tuple[int, list[int]]]:
    """Sparse rows of the last step and the blocks that attention read, in order, as places of the row."""
    decode = run.device.decode
    step, size = decode.step, decode.size
    for request in range(len(run.requests)):
        n = int(step.n[request])
        if int(step.chosen[request]) == n:
            continue
        for row in range(request * size.heads, (request + 1) * size.heads):
            count = -(-int(step.tokens[row]) // size.block_size)
            places = {int(block): place for place, block in enumerate(step.table[row, :n])}
            yield row, [places[block] for block in step.lists[row, :count].tolist()]


def check_lists(run: Run) -> int:
    """The rows whose lists hold what the scores of the step rank first; any other list fails."""
    decode, case = run.device.decode, run.case
    checked = 0
    for row, found in lists_of(run):
        n = int(decode.step.n[row // case.heads])
        blocks = {*range(case.bos), *range(n - case.eos, n)}
        for score, pick in zip(decode.buffers.scores, case.graph.selections, strict=True):
            k = int(decode.step.chosen[row // case.heads]) - case.bos - case.eos if pick.k is None else pick.k
            blocks |= set(
                top(score[row, :n].float().cpu()[:, None, None], Row(n, case.bos, case.eos, k)).tolist()
            )
        assert sorted(found) == sorted(blocks)
        assert found[-1] == n - 1
        checked += 1
    return checked


def test_prompts_are_summarised_before_the_step_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores read fields before they wait for the kernels in front, but never before the plan is done."""
    run, done = Run(case_of("block_sparse_attention"), "triton"), []
    for name in ("summarize", "plan"):
        monkeypatch.setattr(run.device.decode, name, lambda *given, name=name: done.append(name))
    run.session.begin_step()
    run.session.begin_step()
    assert done == ["summarize", "plan", "plan"]


@pytest.mark.parametrize(
    "flow", [flow if flow in QUICK else pytest.param(flow, marks=pytest.mark.full) for flow in NAMED]
)
def test_a_session_on_the_device_gives_what_the_reference_gives(flow: str) -> None:
    case = case_of(flow)
    ours, right = Run(case, "triton"), Run(case, "reference")
    checked = 0
    for number in range(case.steps):
        torch.testing.assert_close(ours.step(number), right.step(number), rtol=1e-4, atol=1e-4)
        checked += check_lists(ours)
    assert checked == 2 * case.heads * case.steps


def test_requests_that_leave_and_layers_that_are_skipped() -> None:
    case = case_of("block_sparse_attention")
    ours, right = Run(case, "triton"), Run(case, "reference")
    for number, alive in enumerate(([0, 1, 2], [0, 2], [1])):
        ours.keep(alive), right.keep(alive)
        torch.testing.assert_close(ours.step(number), right.step(number), rtol=1e-4, atol=1e-4)
        assert check_lists(ours) == case.heads * int((ours.session.lengths > 112).sum())
    ours.keep([])
    ours, right = Run(case, "triton"), Run(case, "reference")
    torch.testing.assert_close(ours.step(0, layer=0), right.step(0, layer=0), rtol=1e-4, atol=1e-4)


def test_a_session_that_outgrows_its_pages() -> None:
    case = case_of("running_avg_block_sparse", lengths=(127, 119), steps=3)
    ours, right = Run(case, "triton"), Run(case, "reference")
    blocks = ours.device.decode.size.blocks
    for number in range(case.steps):
        torch.testing.assert_close(ours.step(number), right.step(number), rtol=1e-4, atol=1e-4)
        assert check_lists(ours) == 2 * case.heads
    assert ours.device.decode.size.blocks > blocks


HEADS, CONTEXT, PAGE_SIZE, LAYERS = 2, 256, 32, (1, 4)
GEOMETRY = Geometry(16, 32, 4)


class Served:
    """Two layers of a serving engine: pools whose slots hold all heads, and where the tokens of each request
    lie in them. `rows`: the same layers where every row owns its pages."""

    def __init__(self, flow: str, requests: int = 3) -> None:
        config = VortexConfig(
            topk_val=4, block_reserved_eos=2, block_size=16, dtype="float32", dense_crossover=False
        )
        graph = Case(flow=flow, head_dim=32).graph
        random = torch.Generator().manual_seed(5)
        numbers, pages = requests + 1, (requests + 1) * CONTEXT // PAGE_SIZE
        order = torch.randperm(pages, generator=random).view(numbers, -1, 1)
        slots = (order * PAGE_SIZE + torch.arange(PAGE_SIZE)).view(numbers, CONTEXT)
        self.req_to_token = slots.int().to(DEVICE)
        stored = [torch.randn(2, numbers * CONTEXT, HEADS, 32, generator=random).to(DEVICE) for _ in LAYERS]
        self.decode = self._decode(graph, config, requests, HEADS, [KVPool(*parts) for parts in stored])
        apart = [KVPool(*(data.transpose(0, 1).reshape(-1, 32) for data in parts)) for parts in stored]
        self.rows = self._decode(graph, config, requests, 1, apart)
        self.q = torch.randn(8, requests, HEADS * 4, 32, generator=random).to(DEVICE)

    def _decode(
        self, graph: FlowGraph, config: VortexConfig, requests: int, share: int, pools: list[KVPool]
    ) -> DeviceDecode:
        size = step_size(
            graph, GEOMETRY, config,
            requests=requests, heads=HEADS, tokens=CONTEXT, share=share, device=DEVICE,
        )  # fmt: skip
        layers = {index: LayerCache(index, pool) for index, pool in zip(LAYERS, pools, strict=True)}
        decode = DeviceDecode(graph, GEOMETRY, config, layers, size, DEVICE)
        for index, layer in layers.items():
            decode.summarize(index, torch.arange(len(layer.pool.k) // 16 * share, device=DEVICE))
        return decode

    def plan(self, numbers: list[int], lengths: list[int]) -> None:
        seq_len = torch.tensor(lengths, device=DEVICE)
        own = torch.tensor(numbers, device=DEVICE)
        self.decode.plan(seq_len, own, self.req_to_token)
        blocks = self.req_to_token[own, ::16] // 16
        total = self.req_to_token.numel() // 16
        apart = torch.stack([blocks + head * total for head in range(HEADS)], 1).flatten(0, 1)
        self.rows.step.table[: len(apart), : apart.shape[1]] = apart
        self.rows.plan(seq_len, own)


@pytest.mark.parametrize("flow", ["gqa_quest_sparse_attention", "halves", "running_avg_block_sparse"])
def test_pools_whose_slots_hold_all_heads(flow: str) -> None:
    served = Served(flow)
    for number, (numbers, lengths) in enumerate([([3, 0], [200, 40]), ([0, 2, 1], [256, 1, 144])]):
        served.plan(numbers, lengths)
        for layer in LAYERS:
            q = served.q[2 * number + layer % 3][: len(numbers)]
            out, right = (each.attend(layer, q, SCALE) for each in (served.decode, served.rows))
            torch.testing.assert_close(out, right, rtol=1e-5, atol=1e-5)
    assert served.decode.counts() == served.rows.counts()


@pytest.mark.parametrize("flow", ["gqa_quest_sparse_attention", "halves", "running_avg_block_sparse"])
def test_queries_beside_keys_and_values_are_not_copied(flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token's row as a projection to all three leaves it."""
    served, other = Served(flow), Served(flow)
    for each in (served, other):
        each.plan([3, 0], [200, 40])
    attended, run = [], served.decode.attention.run
    monkeypatch.setattr(served.decode.attention, "run", lambda q, *x: attended.append(q) or run(q, *x))
    for layer in LAYERS:
        q = served.q[layer][:2]
        wide = torch.cat((q, torch.full_like(q, torch.nan)), 1)
        out = served.decode.attend(layer, wide[:, : q.shape[1]], SCALE)
        torch.testing.assert_close(out, other.decode.attend(layer, q, SCALE), rtol=0, atol=0)
        assert attended[-1].data_ptr() == wide.data_ptr()


def test_counts_are_those_of_the_steps() -> None:
    for flow in ("block_sparse_attention", "trading_places"):
        served = Served(flow)
        decode, read = served.decode, 0
        for numbers, lengths in (([1, 0, 2], [208, 40, 256]), ([1], [16])):
            served.plan(numbers, lengths)
            for layer in LAYERS:
                decode.attend(layer, served.q[layer][: len(numbers)], SCALE)
                sparse = (decode.step.chosen < decode.step.n).repeat_interleave(HEADS)
                read += int((-(-decode.step.tokens // 16))[sparse].sum())
        assert decode.counts() == {
            "decode_steps": 2,
            "sparse_steps": 1,
            "rows_sparse": 2 * HEADS,
            "rows_dense": HEADS,
            "blocks_read": read + 3 * HEADS * len(LAYERS),
            "blocks_total": (13 + 3 + 16) * HEADS * len(LAYERS),
            "work_chunks": 2 * HEADS,
            "blocks_summarised": 3 * HEADS * len(LAYERS),
            "crossover_steps": 0,
        }
        decode.forget_counts()
        assert not any(decode.counts().values())


@pytest.mark.skipif(DEVICE.type != "cuda", reason="CUDA graphs: needs VORTEX_DEVICE=cuda")
@pytest.mark.parametrize("flow", ["gqa_quest_sparse_attention", "softmax_over_blocks", "halves"])
def test_a_captured_step_is_replayed_for_other_requests(flow: str) -> None:
    served, eager = Served(flow), Served(flow)
    q, out = served.q[0].clone(), {layer: torch.zeros_like(served.q[0]) for layer in LAYERS}

    def step() -> None:
        for layer in LAYERS:
            served.decode.attend(layer, q, SCALE, out[layer])

    served.plan([0, 1, 2], [1, 1, 1])
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for number, (numbers, lengths) in enumerate(
        [([3, 1, 0], [200, 256, 16]), ([0, 3], [255, 1]), ([2, 1], [113, 113])]
    ):
        q.copy_(served.q[number])
        for each in (served, eager):
            each.plan(numbers, lengths)
        graph.replay()
        for layer in LAYERS:
            right = eager.decode.attend(layer, q[: len(numbers)], SCALE)
            torch.testing.assert_close(out[layer][: len(numbers)], right, rtol=0, atol=0)
    assert served.decode.counts()["sparse_steps"] == 3


def test_a_chunk_is_no_longer_than_a_row() -> None:
    case = case_of("centroid")
    for asked, chunk in ((32, 32), (2**31, 64)):
        config = case.config.model_copy(update={"workload_chunk_size": asked})
        size = step_size(
            case.graph, case.geometry, config,
            requests=2, heads=1, tokens=60 * case.block_size, share=1, device="cpu",
        )  # fmt: skip
        assert size.chunk == chunk
