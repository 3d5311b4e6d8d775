"""When a decode step is faster dense: a model of both, with coefficients that one H200 measured.

One layer, in a CUDA graph, all of the step dense or all of it as the policy says, through the same kernels:

    dense  = DENSE_US + bytes of the cache / DENSE_RATE
    sparse = LAUNCH_US * launches + bytes that are scored / SCORE_RATE + bytes that are read / READ_RATE

Measured 2026-11-21 (`python -m benchmarks.kernels crossover`): Qwen3-8B geometry, 64 blocks of 16, centroid
and Quest, batch 1 to 64, 2K to 32K tokens. Rates in bytes a microsecond.
"""

from __future__ import annotations

import torch

from vortex.graph.cost import row_costs
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.kernels.plan_count import Crossover
from vortex.runtime.device import StepSize

DENSE_US = 14.0
DENSE_RATE = 4.1e6
LAUNCH_US = 4.0
SCORE_RATE = 2.0e6
READ_RATE = 2.8e6


def crossover_of(
    graph: FlowGraph,
    geometry: Geometry,
    size: StepSize,
    kv_itemsize: int,
    field_itemsize: int,
    launches: int,
    device: torch.device,
) -> Crossover | None:
    """The costs of one sparse layer of this flow, whose step is so many launches; `kv_itemsize` and
    `field_itemsize` are the bytes of a number in the cache and in fields. None where nothing was measured: on
    a CPU, and on GPUs that are not of the H200's kind."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return None
    costs = row_costs(graph, geometry, kv_itemsize, field_itemsize, size.rows)
    cached = costs.token.bytes * geometry.block_size * size.heads
    return Crossover(
        dense=DENSE_US,
        dense_block=cached / DENSE_RATE,
        sparse=LAUNCH_US * launches,
        score_block=costs.block.bytes * size.heads / SCORE_RATE,
        chosen_block=cached / READ_RATE,
    )
