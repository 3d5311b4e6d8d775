"""The device path of one flow: the sparse layers of a decode step as kernels that a CUDA graph can hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vortex.config import VortexConfig
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.device import DeviceStep, StepSize
from vortex.targets.base import LayerCache


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
    raise NotImplementedError


class DeviceDecode:
    """One flow on the sparse layers of a model, by their numbers in the model. `layers` come with their
    pools; fields that are missing are allocated here.

    A step is `plan()`, then `attend()` once a layer, in any order. `plan` runs before a CUDA graph is
    replayed, `attend` may be inside of it. On CPU tensors the same runs under Triton's interpreter.
    """

    step: DeviceStep
    launches_per_layer: int
    """Kernels that `attend` starts."""

    def __init__(
        self,
        graph: FlowGraph,
        geometry: Geometry,
        config: VortexConfig,
        layers: Mapping[int, LayerCache],
        size: StepSize,
        device: torch.device | str,
    ) -> None:
        raise NotImplementedError

    def plan(
        self,
        seq_len: torch.Tensor,
        requests: torch.Tensor | None = None,
        req_to_token: torch.Tensor | None = None,
    ) -> None:
        """Plan the step of `seq_len [batch]` tokens, the current ones included; see `Planner.run`. Without
        `req_to_token` the caller keeps `step.table`."""
        raise NotImplementedError

    def attend(
        self, layer_id: int, q: torch.Tensor, scale: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention of `q [batch, heads * group, head_dim]`: `[batch, heads * group, value_dim]`, in `out` if
        given (else in a new tensor). The current tokens are in the pool; the blocks that they complete are
        summarised here, those of the prompt are the caller's. Rows of requests without tokens hold anything.
        """
        raise NotImplementedError

    def summarize(self, layer_id: int, blocks: slice | torch.Tensor) -> None:
        """The cache stage of a layer for these block ids, for prefill. Fields that the indexer saves and the
        cache stage does not write start at zero."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """What the plans counted since the last `forget_counts()`, under the names of EngineCounters:
        decode_steps, sparse_steps, rows_sparse, rows_dense, blocks_read, blocks_total, work_chunks,
        blocks_summarised, and crossover_steps. Waits for the device."""
        raise NotImplementedError

    def forget_counts(self) -> None:
        """Start counting from zero, for example after steps that only warm up."""
        raise NotImplementedError
