"""The plan of a step against `vortex.runtime.plan` and what DeviceStep promises; with VORTEX_DEVICE=cuda the
kernel, which must fill every buffer as its twin on the CPU does."""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vortex.budget import parse_policy
from vortex.budget.compiled import CompiledPolicy, policy_of
from vortex.config import VortexConfig
from vortex.errors import ConfigError, PolicyError
from vortex.kernels import cuda
from vortex.kernels.plan import Planner, longest_list
from vortex.kernels.plan_count import PART_TOKENS, Count, Crossover
from vortex.kernels.plan_cuda import PlanKernel, _constants, plan_source
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.plan import make_plan

DEVICE = torch.device(os.environ.get("VORTEX_DEVICE", "cpu"))
NVCC = shutil.which("nvcc")
SETTINGS = settings(max_examples=150, derandomize=True, database=None, deadline=None)
POLICIES = (
    None,
    "return topk_val + block_reserved_bos + block_reserved_eos;",
    "return cached_block_len > 40 ? int(sqrtf(cached_block_len) * 3.7f) : cached_block_len;",
    "if (cached_block_len % 3 == 0) return 1 << 30; return int(log2f(cached_block_len) * topk_val) / 2;",
    "return cached_block_len - 1;",
    "int left = abs(100 - cached_block_len); while (left > topk_val) left /= 2; return left + topk_val;",
)
"""The last one is outside of the checked subset."""
FILLED = ("seq_len", "n", "chosen", "owner", "chunk_count", "part_count", "part_first")


@dataclass(frozen=True)
class Given:
    """A step: its size, its budget, and the lengths of its requests."""

    size: StepSize
    config: VortexConfig
    seq_len: tuple[int, ...]
    wide: bool = True
    listed: int | None = None
    crossover: Crossover | None = None

    def run(self, device: torch.device = DEVICE, **tables: torch.Tensor) -> tuple[DeviceStep, Planner]:
        planner = Planner(self.size, self.config, device, listed=self.listed, crossover=self.crossover)
        step = DeviceStep(self.size, device)
        for buffer in (step.chunks, step.parts, step.part_first, step.table, step.owner):
            buffer.fill_(-9)
        lengths = torch.tensor(self.seq_len, dtype=torch.int64 if self.wide else torch.int32, device=device)
        planner.run(step, lengths, **{name: table.to(device) for name, table in tables.items()})
        return step, planner

    @property
    def lengths(self) -> np.ndarray:
        return np.array([*self.seq_len, *[0] * (self.size.requests - len(self.seq_len))])


@st.composite
def steps(draw: st.DrawFn) -> Given:
    block_size = draw(st.sampled_from([8, 16, 32, 64, 128]))
    blocks = draw(st.sampled_from([4, 60, 300, 3000]))
    batch = draw(st.integers(0, 12))
    lengths = st.integers(0, blocks * block_size) | st.sampled_from([1, block_size, blocks * block_size])
    config = VortexConfig(
        topk_val=draw(st.integers(1, 40)),
        topk_ratio=draw(st.sampled_from([0.0, 0.1, 0.3, 1.0])),
        max_topk_val=draw(st.none() | st.integers(40, 90)),
        block_reserved_bos=draw(st.integers(1, 3)),
        block_reserved_eos=draw(st.integers(1, 3)),
        workload_chunk_size=draw(st.sampled_from([1, 8, 32])),
        schedule_policy=draw(st.sampled_from(POLICIES)),
        block_size=block_size,
    )
    heads = draw(st.sampled_from([1, 2, 8]))
    listed = draw(st.none() | st.integers(8, 60))
    return Given(
        sized(
            config, batch + draw(st.integers(0, 3)) or 1, heads, blocks, draw(st.sampled_from([1, heads])),
            draw(st.sampled_from([1, 6, 66, 500])), listed,
        ),
        config, tuple(draw(st.lists(lengths, min_size=batch, max_size=batch))), draw(st.booleans()), listed,
    )  # fmt: skip


def sized(
    config: VortexConfig, requests: int, heads: int, blocks: int, share: int, programs: int,
    listed: int | None = None,
) -> StepSize:  # fmt: skip
    assert config.block_size is not None
    return StepSize(
        requests=requests,
        heads=heads,
        blocks=blocks,
        chosen=longest_list(policy_of(config), config, blocks, listed),
        block_size=config.block_size,
        bos=config.block_reserved_bos,
        eos=config.block_reserved_eos,
        chunk=config.workload_chunk_size,
        share=share,
        programs=programs,
    )


def planned(case: Given) -> tuple[np.ndarray, np.ndarray]:
    """n and chosen of every request, by the host's plan."""
    live = case.lengths > 0
    plan = make_plan(case.lengths[live], case.size.block_size, case.config, policy_of(case.config))
    n, chosen = np.zeros((2, case.size.requests), dtype=np.int64)
    n[live], chosen[live] = plan.n, plan.chosen
    return n, chosen


@SETTINGS
@given(steps())
def test_counts_and_work_are_those_of_the_host_plan(case: Given) -> None:
    step, planner = case.run()
    n, chosen = planned(case)
    size = case.size
    assert step.seq_len.tolist() == case.lengths.tolist()
    assert step.n.tolist() == n.tolist()
    assert step.chosen.tolist() == chosen.tolist()
    assert step.owner.tolist() == list(range(size.requests))
    chunks = step.chunks[: int(step.chunk_count)].tolist()
    sparse = np.flatnonzero(chosen < n)
    assert chunks == [[r, p] for r in sparse for p in range(size.bos, n[r] - size.eos, size.chunk)]
    listed = chosen if case.listed is None else np.where(chosen < n, np.minimum(n, case.listed), n)
    check_parts(step, listed)
    heads = size.heads
    counts = dict(zip(Count, planner.counts.tolist(), strict=True))
    assert counts[Count.STEPS] == 1
    assert counts[Count.BLOCKS_FINISHED] == heads * sum(
        length > 0 and length % size.block_size == 0 for length in case.seq_len
    )
    if len(sparse) == 0:
        assert sum(counts.values()) == 1 + counts[Count.BLOCKS_FINISHED]
        return
    read = chosen if case.listed is None else np.where(chosen < n, 0, n)
    assert counts[Count.SPARSE_STEPS] == 1
    assert counts[Count.ROWS_SPARSE] == heads * len(sparse)
    assert counts[Count.ROWS_DENSE] == heads * ((chosen == n) & (n > 0)).sum()
    assert counts[Count.BLOCKS_READ] == heads * read.sum()
    assert counts[Count.BLOCKS_TOTAL] == heads * n.sum()
    assert counts[Count.CHUNKS] == heads * len(chunks)


def check_parts(step: DeviceStep, listed: np.ndarray) -> None:
    """The parts cut every list into consecutive stretches of about one length."""
    parts, first = step.parts[: int(step.part_count)].tolist(), step.part_first.tolist()
    assert first[0] == 0
    assert first[-1] == len(parts) <= step.size.parts
    for request, blocks in enumerate(listed):
        own = parts[first[request] : first[request + 1]]
        ends = [0, *(start + count for _, start, count in own)]
        assert [start for _, start, _ in own] == ends[:-1]
        assert ends[-1] == blocks
        assert all(r == request and count > 0 for r, _, count in own)
        counts = [count for *_, count in own]
        assert max(counts, default=0) - min(counts, default=0) <= 1
        least = max(1, PART_TOKENS // step.size.block_size)
        assert len(own) <= 1 or (blocks + least - 1) // least >= len(own)


@SETTINGS
@given(steps(), st.data())
def test_the_table_is_read_from_the_pools_slots(case: Given, data: st.DataObject) -> None:
    size, batch = case.size, len(case.seq_len)
    slots = 5 + batch
    context = size.blocks * size.block_size - data.draw(st.sampled_from([0, 1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    first = rng.integers(0, 1 << 16, (slots, size.blocks)) * size.block_size
    tokens = (first[:, :, None] + np.arange(size.block_size)).reshape(slots, -1)[:, :context]
    numbers = rng.permutation(slots)[:batch]
    wide = data.draw(st.sampled_from([torch.int32, torch.int64]))
    step, _ = case.run(
        requests=torch.from_numpy(numbers).to(wide),
        req_to_token=torch.from_numpy(np.ascontiguousarray(tokens)).int(),
    )
    n = planned(case)[0]
    assert step.owner.tolist()[:batch] == numbers.tolist()
    for row, found in enumerate(step.table.tolist()):
        request = row // (size.heads // size.share)
        blocks = int(n[request])
        expected = first[numbers[request], :blocks] // size.block_size if blocks else []
        assert found[:blocks] == list(expected)
        assert set(found[blocks:]) <= {-9}


def test_nothing_outside_of_the_tables_is_read() -> None:
    """Requests that are longer than a step has room for, and numbers that no request has."""
    config = VortexConfig(topk_val=2, block_size=16)
    size = sized(config, 3, 1, 10, 1, 4)
    case = Given(size, config, (1000, 80, -5))
    tokens = torch.arange(2 * 64, dtype=torch.int32).view(2, 64)
    step, _ = case.run(requests=torch.tensor([7, -1, 0]), req_to_token=tokens)
    assert step.seq_len.tolist() == [160, 80, 0]
    assert step.n.tolist() == [10, 5, 0]
    assert step.table[0, :4].tolist() == [4, 5, 6, 7]
    assert step.table[1, :4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("requests", "blocks", "programs"), [(1024, 131072, 132), (1024, 2048, 66), (1, 131072, 528)]
)
def test_large_steps(requests: int, blocks: int, programs: int) -> None:
    config = VortexConfig(topk_val=61, topk_ratio=0.02, block_size=16, block_reserved_eos=2)
    rng = np.random.default_rng(requests + blocks)
    lengths = rng.integers(1, blocks * 16 + 1, requests)
    step, _ = (case := Given(sized(config, requests, 64, blocks, 64, programs), config, tuple(lengths))).run()
    n, chosen = planned(case)
    assert step.n.tolist() == n.tolist()
    assert step.chosen.tolist() == chosen.tolist()
    check_parts(step, chosen)
    chunks = step.chunks[: int(step.chunk_count)].cpu().numpy()
    pieces = np.where(chosen < n, -(-(n - 3) // 32), 0)
    assert np.bincount(chunks[:, 0], minlength=requests).tolist() == pieces.tolist()
    assert (np.diff(chunks[:, 1])[np.diff(chunks[:, 0]) == 0] == 32).all()


def test_parts_fill_the_programs_evenly() -> None:
    """Where there is work for all of them, few programs idle for long."""
    config = VortexConfig(topk_val=61, block_size=16, block_reserved_eos=2)
    for batch in (1, 2, 4, 13, 16, 33, 64):
        step, _ = Given(sized(config, 64, 8, 2048, 8, 66), config, (32768,) * batch).run()
        counts = step.parts[: int(step.part_count), 2].tolist()
        longest = max(counts)
        assert len(counts) >= min(66, batch * 8) / 1.4
        turns = -(-len(counts) // 66)
        if batch > 8:
            assert turns * longest * 66 <= 1.4 * sum(counts)


def test_the_crossover_makes_a_whole_step_dense() -> None:
    config = VortexConfig(topk_val=29, block_size=16)
    size = sized(config, 4, 2, 4096, 2, 16)
    costs = Crossover(dense=1.0, dense_block=0.01, sparse=8.0, score_block=0.001, chosen_block=0.01)
    # One request: 1 + n / 100 against 8 + n / 1000 + 0.31, equal near n = 812.
    for blocks, dense in ((812, True), (813, False), (4000, False), (500, True)):
        case = Given(size, config, (blocks * 16,), crossover=costs)
        step, planner = case.run()
        assert bool(step.chosen[0] == step.n[0]) is dense
        assert int(step.chunk_count) == (0 if dense else -(-(blocks - 2) // 32))
        assert int(planner.counts[Count.CROSSOVER_STEPS]) == dense
        check_parts(step, step.chosen.cpu().numpy())
    longer, _ = Given(size, config, (500 * 16, 500 * 16, 16), crossover=costs).run()
    assert longer.chosen.tolist() == [31, 31, 1, 0]  # together they are worth it
    _, planner = Given(size, config, (16,), crossover=costs).run()
    assert int(planner.counts[Count.CROSSOVER_STEPS]) == 0


def test_counts_add_up_over_steps() -> None:
    config = VortexConfig(topk_val=4, block_size=16)
    size = sized(config, 2, 3, 64, 3, 4)
    planner, step = Planner(size, config, DEVICE), DeviceStep(size, DEVICE)
    for lengths in ([100 * 3, 16], [16, 32], [512, 512]):
        planner.run(step, torch.tensor(lengths, device=DEVICE))
    counts = dict(zip(Count, planner.counts.tolist(), strict=True))
    assert counts[Count.STEPS] == 3
    assert counts[Count.SPARSE_STEPS] == 2
    assert counts[Count.ROWS_SPARSE] == 3 * 3
    assert counts[Count.ROWS_DENSE] == 3
    assert counts[Count.BLOCKS_FINISHED] == 3 * 5
    assert counts[Count.BLOCKS_READ] == 3 * (6 + 1 + 6 + 6)
    assert counts[Count.BLOCKS_TOTAL] == 3 * (19 + 1 + 32 + 32)


class Liar:
    """A rule whose device does not say what the host was told when the lists were made."""

    def __init__(self, host: str, device: str) -> None:
        self.host, self.device = parse_policy(host), parse_policy(device)

    def evaluate_many(self, *given: Any) -> np.ndarray:
        return self.host.evaluate_many(*given)

    def cuda(self) -> str:
        return self.device.cuda()

    def tell(self) -> None:
        self.host = self.device


@pytest.mark.parametrize(
    ("listed", "host", "read", "counted"),
    [(None, 6, 6, 6 + 2), (None, 100, 3, 3 + 2), (9, 6, 9, 2), (9, 100, 3, 2)],
    ids=["plan", "plan, never sparse", "Union", "Union, never sparse"],
)
def test_lists_are_long_enough_whatever_the_device_says(
    monkeypatch: pytest.MonkeyPatch, listed: int | None, host: int, read: int, counted: int
) -> None:
    """A policy that chooses more on the device than on the host: no part reads past a list, and the step
    counts what is read. Where the host has found no sparse row, lists have their least length."""
    config = VortexConfig(schedule_policy="return 1;", block_size=16)
    rule = Liar(f"return {host};", "return cached_block_len - 1;")
    monkeypatch.setattr("vortex.kernels.plan.policy_of", lambda _: rule)
    width = longest_list(rule, config, 64, listed)
    size = StepSize(2, 1, 64, width, 16, 1, 1, 32, 1, 4)
    planner, step = Planner(size, config, DEVICE, listed=listed), DeviceStep(size, DEVICE)
    rule.tell()
    planner.run(step, torch.tensor([64 * 16, 2 * 16], device=DEVICE))
    assert step.n.tolist() == [64, 2]
    if listed is None:
        assert step.chosen.tolist() == [read, 2]
    check_parts(step, np.array([read, 2]))
    assert width == read
    assert int(planner.counts[Count.BLOCKS_READ]) == counted


def test_what_does_not_fit_is_refused() -> None:
    config = VortexConfig(topk_val=4, block_size=16)
    size = sized(config, 2, 1, 64, 1, 4)
    with pytest.raises(ConfigError, match="lists of 5 blocks: the policy chooses up to 6"):
        Planner(replace(size, chosen=5), config)
    with pytest.raises(ConfigError, match="at most 5120"):
        Planner(replace(size, requests=5121), config)
    with pytest.raises(ValueError, match="3 requests in a step of at most 2"):
        Planner(size, config, DEVICE).run(DeviceStep(size, DEVICE), torch.ones(3, device=DEVICE).long())
    with pytest.raises(PolicyError, match=r"undeclared|not declared|undefined"):
        Planner(size, config.model_copy(update={"schedule_policy": "while (1) {} return other;"}), DEVICE)


@pytest.mark.parametrize("limit", [2**31 - 1, 2**40])
def test_limits_that_no_row_reaches_fit_the_kernels_integers(limit: int) -> None:
    size = StepSize(
        requests=2, heads=1, blocks=64, chosen=64, block_size=16, bos=1, eos=1, chunk=32, share=1, programs=4
    )  # fmt: skip
    found = _constants(Planner(size, VortexConfig(max_topk_val=limit), listed=limit))
    assert (found.max_topk_val, found.listed) == (64, 64)
    none = _constants(Planner(size, VortexConfig()))
    assert (none.max_topk_val, none.listed) == (-1, -1)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="a kernel against its twin: needs VORTEX_DEVICE=cuda")
@SETTINGS
@given(steps())
def test_the_kernel_fills_what_its_twin_fills(case: Given) -> None:
    costs = Crossover(3.0, 0.01, 5.0, 0.002, 0.013)
    for crossover in (None, costs):
        given_ = replace(case, crossover=crossover)
        (step, planner), (twin, twin_planner) = given_.run(), given_.run(torch.device("cpu"))
        for name in FILLED:
            assert torch.equal(getattr(step, name).cpu(), getattr(twin, name)), name
        for name, count in (("chunks", step.chunk_count), ("parts", step.part_count)):
            assert torch.equal(getattr(step, name)[: int(count)].cpu(), getattr(twin, name)[: int(count)])
        assert planner.counts.tolist() == twin_planner.counts.tolist()


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed here")
def test_a_policy_that_the_compiler_does_not_end_with_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cuda, "LONGEST_BUILD", 0.001)
    monkeypatch.setattr(cuda, "architecture", lambda _: "sm_90a")
    given = {"topk_val": 4, "block_size": 16, "compilation_cache_dir": str(tmp_path)}
    for policy, error in ((None, cuda.BuildError), ("return cached_block_len / 3;", PolicyError)):
        config = VortexConfig(**given, schedule_policy=policy)
        planner = Planner(sized(config, 2, 1, 64, 1, 4), config)
        with pytest.raises(error, match=r"nvcc needs more than 0.001 s for the kernel plan") as found:
            PlanKernel(planner, torch.device("cuda"))
        assert ("schedule_policy" in str(found.value)) is (policy is not None)


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed here")
def test_a_trusted_users_text_compiles_into_the_kernel() -> None:
    rule = policy_of(VortexConfig(schedule_policy=POLICIES[-1]))
    assert isinstance(rule, CompiledPolicy)
    library = cuda.build("plan", plan_source(rule.cuda()), "sm_90a")
    assert ctypes.CDLL(str(library)).vortex_plan
