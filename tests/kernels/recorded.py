"""The launches of one layer of a decode step in SGLang's pool, recorded without running them."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.kernels.geometries import Model
from tests.kernels.launches import Launch, recording
from vortex.config import VortexConfig
from vortex.graph import FlowGraph
from vortex.runtime.decode import DeviceDecode, step_size
from vortex.runtime.pool import KVPool
from vortex.targets import LayerCache

REQUESTS, TOKENS = 16, 32 << 10


def recorded_layer(
    graph: FlowGraph,
    model: Model,
    config: VortexConfig,
    kv: torch.dtype = torch.bfloat16,
    tokens: int = TOKENS,
) -> tuple[DeviceDecode, list[Launch]]:
    """A layer, and the launches of `attend` with bfloat16 queries."""
    block_size = config.block_size or 16
    geometry = model.geometry(block_size)
    latent = model.latent[0] if model.latent else 0
    dim = geometry.head_dim
    # Two of SGLang's pages are enough: nothing is read.
    stored = torch.zeros(2 * block_size, model.heads, dim, dtype=kv)
    pool = KVPool(*[stored] * (1 if latent else 2), kv_lora_rank=latent)
    size = step_size(
        graph,
        geometry,
        config,
        requests=REQUESTS,
        heads=model.heads,
        tokens=tokens,
        share=model.heads,
        device="cpu",
    )
    decode = DeviceDecode(graph, geometry, config, {0: LayerCache(0, pool)}, size, "cpu")
    q = torch.zeros(REQUESTS, model.heads * model.group, dim, dtype=torch.bfloat16)
    with recording(run=False) as made:
        decode.plan(torch.zeros(REQUESTS, dtype=torch.int32))
        decode.attend(0, q, 0.1)
    return decode, made


def layer_launches(
    graph: FlowGraph,
    model: Model,
    config: VortexConfig,
    kv: torch.dtype = torch.bfloat16,
    tokens: int = TOKENS,
) -> list[Launch]:
    """Of `attend`, then of the cache stage as prefill runs it."""
    decode, made = recorded_layer(graph, model, config, kv, tokens)
    with recording(run=False) as more:
        decode.summarize(0, torch.arange(2))
    return [_starting_early(launch) for launch in made + more]


def _starting_early(launch: Launch) -> Launch:
    """As on a GPU that launches kernels before the ones before them end."""
    if "EARLY" not in launch.constants:
        return launch
    return replace(launch, constants={**launch.constants, "EARLY": True})
