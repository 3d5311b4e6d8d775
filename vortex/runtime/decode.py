"""The device path of one flow: the sparse layers of a decode step as kernels that a CUDA graph can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from vortex.budget.compiled import policy_of
from vortex.config import VortexConfig
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.kernels.attention import attention_programs, decode_attention
from vortex.kernels.cuda import keep_in
from vortex.kernels.lists import count_sparse
from vortex.kernels.plan import Planner, longest_list
from vortex.kernels.plan_count import Count
from vortex.kernels.topk import Selector
from vortex.runtime.crossover import crossover_of
from vortex.runtime.device import DeviceStep, StepSize
from vortex.runtime.dtypes import TORCH_DTYPES
from vortex.runtime.fields import allocate, clear, saved_fields
from vortex.targets.base import LayerCache

if TYPE_CHECKING:
    from vortex.targets.triton import TritonProgram

ALIGNED = 8
"""Scores of a row start at a multiple of so many, for wide loads."""


def step_size(
    graph: FlowGraph,
    geometry: Geometry,
    config: VortexConfig,
    *,
    requests: int,
    heads: int,
    tokens: int,
    share: int,
    device: torch.device | str,
) -> StepSize:
    """The size of steps of up to `requests` requests of up to `tokens` tokens on `heads` kv heads."""
    blocks = -(-tokens // (geometry.block_size * ALIGNED)) * ALIGNED
    return StepSize(
        requests=requests,
        heads=heads,
        blocks=blocks,
        chosen=longest_list(policy_of(config), config, blocks, union_blocks(graph, geometry, config)),
        block_size=geometry.block_size,
        bos=config.block_reserved_bos,
        eos=config.block_reserved_eos,
        chunk=min(config.workload_chunk_size, 1 << (blocks - 1).bit_length()),
        share=share,
        programs=attention_programs(heads, device, geometry.group if geometry.kv_lora_rank else 1),
    )


def union_blocks(graph: FlowGraph, geometry: Geometry, config: VortexConfig) -> int | None:
    """The most blocks that a sparse row of a Union reads; None for other flows."""
    picks = [pick.k for pick in graph.instantiate(geometry).selections if pick.k is not None]
    return sum(picks) + config.block_reserved_bos + config.block_reserved_eos if picks else None


class DeviceDecode:
    """One flow on the sparse layers of a model, by their numbers in the model. `layers` come with their
    pools; fields that are missing are allocated here, request fields for the requests 0 to `size.requests -
    1`.

    A step is `plan()`, then `attend()` once a layer, in any order. `plan` runs before a CUDA graph is
    replayed, `attend` may be inside of it. On CPU tensors the same runs under Triton's interpreter.
    """

    def __init__(
        self,
        graph: FlowGraph,
        geometry: Geometry,
        config: VortexConfig,
        layers: Mapping[int, LayerCache],
        size: StepSize,
        device: torch.device | str,
    ) -> None:
        from vortex.targets.triton import TritonProgram

        keep_in(config.compilation_cache_dir)
        concrete = graph.instantiate(geometry)
        self.layers, self.size, self.device = dict(layers), size, torch.device(device)
        self.program: TritonProgram = TritonProgram(
            graph,
            geometry,
            config.dtype,
            use_tensor_core=config.use_tensor_core,
            cache_dir=config.compilation_cache_dir,
        )
        self.saved = saved_fields(concrete)
        self.dtype = TORCH_DTYPES[config.dtype]
        self.allocate()
        pool = next(iter(self.layers.values())).pool
        self.value_dim = pool.value_dim
        self.step = DeviceStep(size, device)
        self.buffers = self.program.buffers(size, self.device)
        quotas = tuple(pick.k for pick in self.program.selections)
        self.selector = Selector(quotas, tolerance(concrete), self.program.score_dtype)
        self.attention = decode_attention(
            config.attention_backend, size, geometry.group, geometry.head_dim, self.value_dim, device
        )
        self.union = union_blocks(graph, geometry, config)
        crossover = None
        if config.dense_crossover and not self.saved and not self.program.request_fields:
            sizes = pool.k.itemsize, self.dtype.itemsize
            crossover = crossover_of(graph, geometry, size, *sizes, self.launches_per_layer, self.device)
        self.planner = Planner(size, config, device, listed=self.union, crossover=crossover)

    @property
    def launches_per_layer(self) -> int:
        """Kernels that `attend` starts."""
        return self.program.launches + 1 + self.attention.launches + (self.union is not None)

    def plan(
        self,
        seq_len: torch.Tensor,
        requests: torch.Tensor | None = None,
        req_to_token: torch.Tensor | None = None,
    ) -> None:
        """Plan the step of `seq_len [batch]` tokens, the current ones included; see `Planner.run`. Without
        `req_to_token` the caller keeps `step.table`."""
        self.planner.run(self.step, seq_len, requests, req_to_token)

    def attend(
        self, layer_id: int, q: torch.Tensor, scale: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention of `q [batch, heads * group, head_dim]`: `[batch, heads * group, value_dim]`, in `out` if
        given (else in a new tensor). q may be a part of a wider tensor, and is not copied. The current tokens
        are in the pool; the blocks that they complete are summarised here, those of the prompt are the
        caller's. Rows of requests without tokens hold anything.
        """
        layer = self.layers[layer_id]
        if out is None:
            out = q.new_empty((*q.shape[:2], self.value_dim))
        scores = self.program.score(q, layer, self.step, self.buffers)
        self.selector.run(scores, self.step)
        if self.union is not None:
            count_sparse(self.step, self.planner.counts[Count.UNION_READ :])
        self.attention.run(
            q, layer.pool, self.step, scale, out.view(-1, self.attention.group, self.value_dim)
        )
        return out

    def summarize(self, layer_id: int, blocks: slice | torch.Tensor) -> None:
        """The cache stage of a layer for these block ids, for prefill, before the plan of a step that scores
        them: scores read fields before they wait for the kernels in front. Fields that the indexer saves and
        the cache stage does not write start at zero."""
        layer = self.layers[layer_id]
        clear(layer, self.saved, blocks)
        self.program.summarize(layer, blocks)

    def counts(self) -> dict[str, int]:
        """What the plans counted since the last `forget_counts()`, under the names of EngineCounters:
        decode_steps, sparse_steps, rows_sparse, rows_dense, blocks_read, blocks_total, work_chunks,
        blocks_summarised, and crossover_steps. Waits for the device."""
        found = self.planner.counts.tolist()
        layers = len(self.layers)
        return {
            "decode_steps": found[Count.STEPS],
            "sparse_steps": found[Count.SPARSE_STEPS],
            "rows_sparse": found[Count.ROWS_SPARSE],
            "rows_dense": found[Count.ROWS_DENSE],
            "blocks_read": found[Count.BLOCKS_READ] * layers + found[Count.UNION_READ],
            "blocks_total": found[Count.BLOCKS_TOTAL] * layers,
            "work_chunks": found[Count.CHUNKS],
            "blocks_summarised": found[Count.BLOCKS_FINISHED] * layers,
            "crossover_steps": found[Count.CROSSOVER_STEPS],
        }

    def forget_counts(self) -> None:
        """Start counting from zero, for example after steps that only warm up."""
        self.planner.counts.zero_()

    def allocate(self) -> None:
        """Make fields that are missing, and enlarge those of pools that have grown; new ones are zero."""
        fields, request_fields = self.program.fields, self.program.request_fields
        for layer in self.layers.values():
            blocks = layer.pool.k.shape[0] // self.size.block_size * self.size.share
            allocate(layer, fields, request_fields, blocks, self.size.rows, self.dtype)


def tolerance(graph: FlowGraph) -> float:
    """The share of a selection that need not be among the best."""
    share = dict(graph.selector.attrs).get("tolerate_ratio", 0.0)
    return share if isinstance(share, float) else 0.0
