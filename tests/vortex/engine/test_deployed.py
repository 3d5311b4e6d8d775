"""A flow on a serving engine's pool (shuffled pages, heads side by side) does what it does in a
`DecodeSession`, whose pools keep every head apart: step by step, on the same keys and values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.vortex.runtime.test_state import RUNNING, SMOOTH_QUERY, UNION
from vortex.config import VortexConfig
from vortex.engine.sgl.deployed import Deployed, Room
from vortex.engine.sgl.on_device import DeviceDeployed
from vortex.engine.sgl.on_host import HostDeployed
from vortex.flow import get, list_keys, trace_source
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession

CPU = torch.device("cpu")
HEADS, GROUP, DIM, ROPE, LAYER = 2, 3, 16, 8, 1
LENGTHS = (333, 30, 200, 512, 47)
SCALE = 0.3


def flows(kind: str) -> list[str]:
    """Shipped flows of a kind."""
    shipped = [name for name in list_keys() if get(name).__module__.startswith("vortex.flow.algorithms")]
    return [name for name in shipped if get(name).kind == kind]


@dataclass
class Served:
    """One layer of requests of random tokens, in the pool of an engine with pages of `page` tokens."""

    config: VortexConfig
    graph: FlowGraph
    heads: int
    page: int
    lengths: np.ndarray = field(default_factory=lambda: np.array(LENGTHS))
    latent: int = 0
    kind: type[Deployed] = HostDeployed

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(7)
        self.geometry = _geometry(self.config.block_size or self.page, self.latent)
        room = -(-(self.lengths + 64) // self.page)
        owned = 1 + torch.randperm(int(room.sum()) + 3, generator=self.random)
        self.req_to_token = torch.zeros((len(self.lengths) + 4, 1024), dtype=torch.int32)
        self.requests = torch.randperm(len(self.lengths) + 3, generator=self.random)[: len(self.lengths)] + 1
        for request, pages in zip(self.requests, owned.split([*room.tolist(), 3])[:-1], strict=True):
            slots = (pages[:, None] * self.page + torch.arange(self.page)).view(-1)
            self.req_to_token[request, : len(slots)] = slots.int()
        parts = 1 if self.latent else 2
        shape = ((len(owned) + 1) * self.page, self.heads, self.geometry.head_dim)
        self.stored = [self.draw(*shape) for _ in range(parts)]  # what others have left there
        squeezed = [x.squeeze(1) if self.heads == 1 else x for x in self.stored]
        pool = KVPool(*squeezed, kv_lora_rank=self.latent)
        room = Room(len(self.req_to_token), self.heads, self.page, 1024, torch.float32, CPU)
        self.deployed = self.kind(self.config, self.graph, self.geometry, {LAYER: pool}, room)
        self.deployed.start_requests(self.requests)

    def draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.random)

    def prefill(self, request: int, tokens: list[torch.Tensor], first: int = 0) -> None:
        """Store `tokens [n, heads, dim]` of a request from position `first` on, as prefill does."""
        slots = self.req_to_token[self.requests[request], first : first + len(tokens[0])].long()
        for stored, part in zip(self.stored, tokens, strict=True):
            stored[slots] = part
        finished = self.deployed.finished_blocks(slots, 1)
        if finished is not None:
            self.deployed.summarise(LAYER, finished)

    def decode(self, q: torch.Tensor, new: list[torch.Tensor]) -> torch.Tensor | None:
        """One step; None where no request is sparse."""
        slots = self.begin_step()
        for stored, part in zip(self.stored, new, strict=True):
            stored[slots] = part
        if self.deployed.decodes:
            return self.deployed.attend(LAYER, q, SCALE)
        self.deployed.summarise_finished(LAYER)
        return None

    def begin_step(self) -> torch.Tensor:
        """The plan of a step with one more token a request; returns where those go."""
        slots = self.req_to_token[self.requests, torch.from_numpy(self.lengths)].long()
        self.lengths = self.lengths + 1
        batch = SimpleNamespace(
            forward_mode=SimpleNamespace(is_idle=lambda: False, is_decode=lambda: True),
            seq_lens=torch.from_numpy(self.lengths),
            seq_lens_cpu=torch.from_numpy(self.lengths),
            req_pool_indices=self.requests,
            out_cache_loc=slots,
        )
        self.deployed.begin(batch, len(self.lengths), self.req_to_token)
        return slots


def _geometry(block_size: int, latent: int) -> Geometry:
    if latent:
        return Geometry.mla(block_size, latent, ROPE, HEADS * GROUP)
    return Geometry(block_size, DIM, GROUP)


def session(served: Served, prompts: list[list[torch.Tensor]]) -> DecodeSession:
    """The same requests where every row owns its pages."""
    heads, lengths = served.heads, served.lengths
    counts = np.repeat(-(-(lengths + 64) // PAGE), heads)
    pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
    geometry = served.geometry
    pools = [
        KVPool.allocate(int(counts.sum()), geometry.head_dim, torch.float32, CPU, served.latent)
        for _ in range(LAYER + 1)
    ]
    for row, page in enumerate(pages.pages[:, 0]):
        parts = [part[:, row % heads] for part in prompts[row // heads]]
        pools[LAYER].write(slice(int(page) * PAGE, int(page) * PAGE + len(parts[0])), *parts)
    return DecodeSession(pools, pages, lengths, geometry.group, served.graph, served.config)


def compare(served: Served, steps: int, chunk: int = 10_000) -> int:
    """Decode both ways; returns the number of steps with sparse rows."""
    kinds, dim = len(served.stored), served.geometry.head_dim
    prompts = [
        [served.draw(int(length), served.heads, dim) for _ in range(kinds)] for length in served.lengths
    ]
    for request, tokens in enumerate(prompts):
        for first in range(0, len(tokens[0]), chunk):
            served.prefill(request, [part[first : first + chunk] for part in tokens], first)
    other = session(served, prompts)
    compared = 0
    batch, queries = len(prompts), served.heads * served.geometry.group
    for _ in range(steps):
        q = served.draw(batch, queries, dim)
        new = [served.draw(batch, served.heads, dim) for _ in range(kinds)]
        other.begin_step()
        expected = other.attend(LAYER, q, new[0], new[1] if kinds == 2 else None, SCALE)
        found = served.decode(q, new)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            compared += 1
    return compared


def served(
    name: str,
    page: int,
    latent: int = 0,
    graph: FlowGraph | None = None,
    kind: type[Deployed] = HostDeployed,
    **knobs: object,
) -> Served:
    values = {"topk_val": 3, "block_size": page, "dtype": "float32", "block_reserved_eos": 2} | knobs
    config = VortexConfig.model_validate(values | {"module_name": name})
    geometry = _geometry(config.block_size or page, latent)
    graph = graph or config.load_graph(geometry)
    return Served(config, graph, 1 if latent else HEADS, page, latent=latent, kind=kind)


@pytest.mark.parametrize("name", ["gqa_quest_sparse_attention", "running_avg_block_sparse"])
def test_generated_kernels_do_the_same(name: str) -> None:
    batch = served(name, 16, kind=DeviceDeployed)
    assert compare(batch, 8, chunk=100) == 8
    counters = batch.deployed.report()
    assert counters.sparse_steps == counters.decode_steps == 8
    assert 0 < counters.blocks_read < counters.blocks_total


@pytest.mark.parametrize("name", flows("gqa"))
def test_shipped_flows(name: str) -> None:
    assert compare(served(name, 16), 20) == 20


@pytest.mark.parametrize("name", flows("mla"))
def test_shipped_mla_flows(name: str) -> None:
    assert compare(served(name, 16, latent=16), 20) == 20


@pytest.mark.parametrize("source", [RUNNING, SMOOTH_QUERY, UNION], ids=["saves", "request fields", "union"])
def test_flows_with_state_and_unions(source: str) -> None:
    batch = served("own", 16, graph=trace_source(source))
    assert compare(batch, 20) == 20
    counters = batch.deployed.report()
    assert 0 < counters.blocks_read < counters.blocks_total


def test_fields_of_requests_are_memory_too() -> None:
    deployed = served("own", 16, graph=trace_source(SMOOTH_QUERY)).deployed
    layer = deployed.layers[LAYER]
    assert layer.requests
    kept = [*layer.fields.values(), *layer.requests.values()]
    assert deployed.report().summary_bytes == sum(x.numel() * x.element_size() for x in kept)


@pytest.mark.parametrize(("page", "block"), [(8, 8), (32, 8), (32, 16), (64, 32)])
def test_blocks_within_pages_and_chunked_prefill(page: int, block: int) -> None:
    assert compare(served("gqa_quest_sparse_attention", page, block_size=block), 20, chunk=37) == 20


def test_rows_of_every_kind_beside_each_other() -> None:
    batch = served("gqa_quest_sparse_attention", 16, topk_val=11)
    compare(batch, 10)
    counters = batch.deployed.report()
    assert counters.rows_dense > 0
    assert counters.rows_sparse > 0
    blocks = [-(-(length + 1 + step) // 16) for length in LENGTHS for step in range(10)]
    assert counters.blocks_read == HEADS * sum(min(n, 14) for n in blocks)
    assert counters.blocks_total == HEADS * sum(blocks)


def test_short_requests_alone_are_left_to_the_dense_backend() -> None:
    batch = served("block_sparse_attention", 16, topk_val=1000)
    assert compare(batch, 3) == 0
    assert batch.deployed.report().decode_steps == 3


@pytest.mark.parametrize("kind", ["gqa", "mla"])
def test_what_other_requests_left_in_reused_pages_is_not_read(kind: str) -> None:
    latent = 16 if kind == "mla" else 0
    batch = served(flows(kind)[0], 16, latent=latent, topk_val=11)
    for stored in batch.stored:
        stored.fill_(torch.nan)
    batch.deployed.summarise_all()
    assert compare(batch, 10) == 10
    assert batch.deployed.report().rows_dense > 0


def test_a_reused_block_starts_saved_fields_from_zeros() -> None:
    batch = served("running_avg_block_sparse", 16)
    compare(batch, 3)
    field = batch.deployed.layers[LAYER].fields
    scores = next(x for x in field.values() if x.shape[1:] == (1, 1))
    assert scores.abs().sum() > 0
    slots = batch.req_to_token[batch.requests[0], :320].long()
    finished = batch.deployed.finished_blocks(slots, 1)
    assert finished is not None
    batch.deployed.summarise(LAYER, finished)
    assert scores[finished].abs().sum() == 0


class TestFormats:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "fp8_e4m3", "fp8_e5m2"])
    def test_fields_are_stored_as_they_are_rounded(self, dtype: str) -> None:
        """The session keeps rounded numbers in float32, the engine keeps the format itself."""
        batch = served("gqa_quest_sparse_attention", 16, dtype=dtype)
        assert compare(batch, 10) == 10
        stored = next(iter(batch.deployed.layers[LAYER].fields.values()))
        assert batch.deployed.report().summary_bytes == 2 * stored.nbytes
        assert stored.itemsize == (1 if dtype.startswith("fp8") else 2)

    def test_fp8_keys_and_values(self) -> None:
        batch = served("block_sparse_attention", 16)
        pool = batch.deployed.layers[LAYER].pool
        pool.stored = tuple(x.to(torch.float8_e4m3fn) for x in pool.stored)
        batch.begin_step()
        q = batch.draw(len(LENGTHS), HEADS * GROUP, DIM)
        found = batch.deployed.attend(LAYER, q, SCALE)
        pool.stored = tuple(x.float() for x in pool.stored)
        torch.testing.assert_close(batch.deployed.attend(LAYER, q, SCALE), found)
