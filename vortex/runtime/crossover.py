"""When a decode step is faster dense: a model of both, with coefficients that one H200 measured.

One layer, in a CUDA graph, all of the step dense or all of it as the policy says, through the same kernels:

    dense  = dense_us + bytes of the cache / dense
    sparse = launch_us * launches + bytes that are scored / score + bytes that are read / read

`python -m benchmarks.kernels.crossover` measures layers of batch 1 to 64 and 2K to 32K tokens, fits the
coefficients and prints where the model would decide otherwise than the measurement; each constant says where
it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vortex.graph.cost import row_costs
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.kernels.plan_count import Crossover
from vortex.runtime.device import StepSize


@dataclass(frozen=True)
class Rates:
    """Microseconds, and bytes a microsecond."""

    dense_us: float
    dense: float
    launch_us: float
    score: float
    read: float


KEYS_AND_VALUES = Rates(dense_us=12.1, dense=4.14e6, launch_us=3.24, score=3.41e6, read=3.81e6)
"""The command at a1a3e85, 2026-11-21: Qwen3-8B, 64 blocks of 16, centroid and Quest, flows of four launches.
It decides all 32 layers measured as they were faster. An extrapolation for models of other sizes."""
LATENTS = Rates(dense_us=16.7, dense=3.65e6, launch_us=4.7, score=1.38e6, read=4.08e6)
"""The same run: GLM-4.7-Flash, 64 blocks of 32, centroid and Quest without tensor cores, which arithmetic
holds up and not bytes: 21 of 24 layers are decided right, and the others cost 2 to 6 us."""


def crossover_of(
    graph: FlowGraph,
    geometry: Geometry,
    size: StepSize,
    kv_itemsize: int,
    field_itemsize: int,
    launches: int,
    device: torch.device,
) -> Crossover | None:
    """`layer_costs` on a GPU of the H200's kind; None where nothing was measured: elsewhere."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return None
    rates = LATENTS if geometry.kv_lora_rank else KEYS_AND_VALUES
    return layer_costs(graph, geometry, size, kv_itemsize, field_itemsize, launches, rates)


def layer_costs(
    graph: FlowGraph,
    geometry: Geometry,
    size: StepSize,
    kv_itemsize: int,
    field_itemsize: int,
    launches: int,
    rates: Rates,
) -> Crossover:
    """The costs of one sparse layer of this flow, whose step is so many launches; `kv_itemsize` and
    `field_itemsize` are the bytes of a number in the cache and in fields."""
    costs = row_costs(graph, geometry, kv_itemsize, field_itemsize, size.rows)
    cached = costs.token.bytes * geometry.block_size * size.heads
    return Crossover(
        dense=rates.dense_us,
        dense_block=cached / rates.dense,
        sparse=rates.launch_us * launches,
        score_block=costs.block.bytes * size.heads / rates.score,
        chosen_block=cached / rates.read,
    )
