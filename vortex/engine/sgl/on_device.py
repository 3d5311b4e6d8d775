"""Decode steps that generated kernels run: planned on the device, so that CUDA graphs hold their layers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from vortex.engine.sgl.counters import EngineCounters
from vortex.engine.sgl.deployed import Deployed, Room
from vortex.engine.sgl.options import PREFIX
from vortex.engine.sgl.target import KERNELS
from vortex.errors import ConfigError
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.pool import KVPool

if TYPE_CHECKING:
    from vortex.graph.geometry import Geometry

logger = logging.getLogger(__name__)

LARGE_BYTES = 1 << 30


class DeviceDeployed(Deployed):
    """See `Deployed`. Serves every decode step, dense requests included, and its buffers are those of the
    largest one; CUDA graphs of all batch sizes share them."""

    target = KERNELS

    def check(self) -> None:
        if self.config.attention_backend == "trtllm":
            _check_xqa(self.geometry, (layer.pool for layer in self.layers.values()), self.room)

    def start(self) -> None:
        config, graph, geometry, room = self.config, self.graph, self.geometry, self.room
        before = _allocated(room.device)
        size = step_size(
            graph,
            geometry,
            config,
            requests=room.requests,
            heads=room.heads,
            tokens=room.context,
            share=room.heads,
            device=room.device,
        )
        try:
            self.runs = DeviceDecode(graph, geometry, config, self.layers, size, room.device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"decode steps of up to {room.requests} requests of {room.context} tokens do not fit into "
                f"what mem_fraction_static leaves: lower max_running_requests or context_length ({error})"
            ) from None
        self.program = self.runs.program
        value_dim = geometry.kv_lora_rank or geometry.head_dim
        shape = room.requests, room.heads * geometry.group, value_dim
        self.out = torch.zeros(shape, dtype=room.dtype, device=room.device)
        """Of every layer in turn. Rows of padding keep numbers of earlier steps: the model reads them."""
        self.prompt_blocks = torch.zeros((), dtype=torch.int64, device=room.device)
        taken = self.counters.buffer_bytes = _allocated(room.device) - before
        if taken > LARGE_BYTES:
            logger.warning(
                "vortex: decode steps of up to %d requests of %d tokens take %.1f GiB of buffers: lower "
                "max_running_requests or context_length if memory is short",
                room.requests,
                room.context,
                taken / 2**30,
            )

    def plan(self, batch: Any, requests: int, req_to_token: torch.Tensor) -> bool:
        self.runs.plan(batch.seq_lens[:requests], batch.req_pool_indices[:requests], req_to_token)
        self.counters.decode_steps += requests > 0
        return True

    def attend(self, layer_id: int, q: torch.Tensor, scale: float) -> torch.Tensor:
        return self.runs.attend(layer_id, q, scale, self.out[: len(q)])

    def finished_blocks(self, slots: torch.Tensor, requests: int) -> torch.Tensor | None:
        """As many ids as there can be, so that nothing waits for the device."""
        most = len(slots) // self.block_size + requests
        ends = (slots + 1) % self.block_size == 0
        place = torch.where(ends, ends.cumsum(0) - 1, most)
        found = slots.new_zeros(most + 1).scatter_(0, place, slots // self.block_size)
        self.prompt_blocks += ends.sum()
        return self.ids_of(found[:most])

    def summarise(self, layer_id: int, blocks: torch.Tensor) -> None:
        self.runs.summarize(layer_id, blocks)

    def summarise_all(self) -> None:
        for index, layer in self.layers.items():
            self.runs.summarize(index, slice(0, self.blocks_of(layer)))

    def report(self) -> EngineCounters:
        if self.room.device.type == "cuda":
            torch.cuda.synchronize(self.room.device)  # steps run on a stream of their own
        counted = self.runs.counts()
        summarised = int(self.prompt_blocks) * self.heads * len(self.layers) + counted["blocks_summarised"]
        changes = {"decode_steps": self.counters.decode_steps, "blocks_summarised": summarised}
        return EngineCounters.model_validate({**self.counters.model_dump(), **counted, **changes})


def _check_xqa(geometry: Geometry, pools: Iterable[KVPool], room: Room) -> None:
    """Raises ConfigError where XQA does not serve this engine."""
    from vortex.kernels.xqa import refusal

    sizes, latent = (geometry.block_size, geometry.head_dim), bool(geometry.kv_lora_rank)
    reason = "it needs a GPU" if room.device.type != "cuda" else None
    for pool in pools:
        reason = reason or refusal(room.dtype, pool.k.dtype, sizes, latent)
    if reason:
        raise ConfigError(f"{PREFIX}attention_backend: 'trtllm' is XQA, and {reason}: use 'flashinfer'")


def _allocated(device: torch.device) -> int:
    """Bytes of tensors on a GPU; a CPU does not count them."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0
