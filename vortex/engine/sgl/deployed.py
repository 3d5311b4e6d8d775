"""One flow on one rank's KV pool: its summaries, and what runs before, between and after attention.

There are two ways to run decode steps: `on_host.py` plans on the host (the `torch` target, on a CPU),
`on_device.py` runs generated kernels that a CUDA graph can hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vortex.engine.sgl.counters import EngineCounters
from vortex.errors import ConfigError
from vortex.graph.model import Format
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.runtime.fields import allocate, field_shapes, saved_fields
from vortex.runtime.pool import KVPool
from vortex.targets.base import LayerCache, Program

if TYPE_CHECKING:
    from vortex.config import VortexConfig
    from vortex.graph.geometry import Geometry
    from vortex.graph.model import FlowGraph


@dataclass(frozen=True)
class Room:
    """What SGLang has room for: requests (its padding row included), kv heads of this rank, tokens of a page
    and of the longest request. `dtype` of queries, `device` of all."""

    requests: int
    heads: int
    page_size: int
    context: int
    dtype: torch.dtype
    device: torch.device


class Deployed(ABC):
    """`pools`: of each sparse layer by its number in the model. Raises VortexError where the flow does not
    fit the model.

    SGLang's batches (`ForwardBatch`, or the view of one that a CUDA graph is replayed for) come to `begin`,
    then every sparse layer to `attend` where `decodes`, otherwise to `summarise_finished` once the dense
    backend has served it.
    """

    target: ClassVar[str]
    program: Program

    def __init__(
        self,
        config: VortexConfig,
        graph: FlowGraph,
        geometry: Geometry,
        pools: Mapping[int, KVPool],
        room: Room,
    ) -> None:
        self.config, self.graph, self.geometry, self.room = config, graph, geometry, room
        self.heads, self.block_size = room.heads, geometry.block_size
        concrete = graph.instantiate(geometry)
        self.saved = saved_fields(concrete)
        self.layers = {index: LayerCache(index, pool) for index, pool in pools.items()}
        self.check()
        fields, request_fields = (field_shapes(concrete, kind) for kind in (Format.PAGED, Format.SLOTTED))
        rows, dtype = room.requests * self.heads, TORCH_DTYPES[config.dtype]
        for layer in self.layers.values():
            allocate(layer, fields, request_fields, self.blocks_of(layer), rows, dtype)
        self.finished: torch.Tensor | None = None
        """Ids of the blocks that the tokens of the step complete, of all kv heads; None: there are none."""
        self.decodes = False
        """Whether `attend` serves the sparse layers of the step."""
        self.counters = EngineCounters(
            flow=config.module_name or "",
            graph=graph.hash,
            target=self.target,
            sparse_layers=len(self.layers),
            summary_bytes=sum(
                field.nbytes
                for layer in self.layers.values()
                for field in (*layer.fields.values(), *layer.requests.values())
            ),
        )
        self.start()

    @abstractmethod
    def check(self) -> None:
        """Raises ConfigError for what this target does not serve. Nothing is allocated yet."""

    @abstractmethod
    def start(self) -> None:
        """Make `program` and what runs it; the fields are there."""

    @abstractmethod
    def plan(self, batch: Any, requests: int, req_to_token: torch.Tensor) -> bool:
        """Plan the decode step of a batch, see `begin`. Whether `attend` is to serve it."""

    @abstractmethod
    def attend(self, layer_id: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        """Attention of `q [tokens, heads * group, head_dim]`, a token for each request of the step, then
        those of padding: `[tokens, heads * group, value_dim]`, until the next layer. The new tokens are in
        the pool; the blocks that they complete are summarised here."""

    @abstractmethod
    def finished_blocks(self, slots: torch.Tensor, requests: int) -> torch.Tensor | None:
        """Ids of the blocks, of all kv heads, that the tokens in `slots [tokens]` complete: those of so many
        prompts. Blocks of the first page, which is padding, may be among them."""

    @abstractmethod
    def summarise(self, layer_id: int, blocks: torch.Tensor) -> None:
        """Run the cache stage of a layer for these block ids `[n]`, any number of times: it reads the
        pool."""

    @abstractmethod
    def summarise_all(self) -> None:
        """Summaries of every block in the pool, whatever wrote it."""

    @abstractmethod
    def report(self) -> EngineCounters:
        """The counters now. May wait for the device."""

    def begin(self, batch: Any, requests: int, req_to_token: torch.Tensor) -> None:
        """Before the layers of a batch, of which the first `requests` requests are real: nothing later reads
        `req_to_token`."""
        self.finished, self.decodes = None, False
        if batch.forward_mode.is_idle():
            return
        if batch.forward_mode.is_decode():
            self.decodes = self.plan(batch, requests, req_to_token)
            return
        self.start_requests(batch.req_pool_indices)
        self.finished = self.finished_blocks(batch.out_cache_loc, requests)

    def start_requests(self, requests: torch.Tensor) -> None:
        """Request fields of the requests `[n]`, whose prompts are being prefilled, start as zeros."""
        for layer in self.layers.values():
            for field in layer.requests.values():
                field.view(-1, self.heads, *field.shape[1:])[requests] = 0

    def summarise_finished(self, layer_id: int) -> None:
        """Summaries of the blocks that the step's tokens complete, which are in the pool."""
        if self.finished is not None:
            self.summarise(layer_id, self.finished)

    def ids_of(self, blocks: torch.Tensor) -> torch.Tensor:
        """Ids of these blocks `[n]` of the pool, of all kv heads: `[n * heads]`."""
        heads = torch.arange(self.heads, device=blocks.device)
        return (blocks[:, None] * self.heads + heads).view(-1)

    def blocks_of(self, layer: LayerCache) -> int:
        """Blocks of all kv heads in a layer's pool."""
        return layer.pool.k.shape[0] // self.block_size * self.heads


def summary_bytes(graph: FlowGraph, geometry: Geometry, config: VortexConfig) -> int:
    """Bytes of the fields of one block of one kv head."""
    shapes = field_shapes(graph.instantiate(geometry), Format.PAGED).values()
    numbers = sum(rows * cols for rows, cols in shapes)
    return numbers * TORCH_DTYPES[config.dtype].itemsize


def check_block_size(config: VortexConfig, page_size: int) -> int:
    """The config's block size, by default a page. Raises ConfigError where it does not divide the page."""
    block = config.block_size or page_size
    if page_size % block or block & (block - 1):
        raise ConfigError(f"block_size={block} must be a power of 2 that divides page_size={page_size}")
    return block
