"""The `triton` target: generated kernels for summaries and scores; selection and attention of the device
path are `vortex.kernels`, and here those of the `torch` target, which serve rows of any plan."""

from __future__ import annotations

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.targets.base import Program
from vortex.targets.torch import TorchTarget
from vortex.targets.triton.program import TritonProgram


class TritonTarget(TorchTarget):
    """See `vortex.targets.base.Target`."""

    name = "triton"

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        return TritonProgram(graph, geometry, dtype)
