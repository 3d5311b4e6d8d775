"""Bytes that attention moves in a decode step, counted from the plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vortex.budget import parse_policy
from vortex.config import VortexConfig
from vortex.graph.cost import row_costs
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.dtypes import itemsize
from vortex.runtime.plan import make_plan


@dataclass(frozen=True)
class Traffic:
    """Counts the attention traffic of a whole model, all layers and kv heads of one request (`heads` is 1
    for MLA, whose latents are read once).

    Skipped layers, and steps whose plan is dense, cost what dense attention costs. `kv_itemsize` is that of
    the deployment that is priced (2 bytes unless said otherwise), whatever the engine that measures
    accuracy stores.
    """

    graph: FlowGraph | None
    geometry: Geometry
    config: VortexConfig
    layers: int
    heads: int
    kv_itemsize: int = 2

    def dense(self, seq_len: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bytes of each step of `seq_len [steps]` tokens, every layer dense."""
        return self._row(None, seq_len, seq_len) * self.layers * self.heads

    def steps(self, seq_len: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bytes of each step of `seq_len [steps]` tokens (the current one included)."""
        dense = self.dense(seq_len)
        if self.graph is None:
            return dense
        policy = None if self.config.schedule_policy is None else parse_policy(self.config.schedule_policy)
        plan = make_plan(seq_len, self.geometry.block_size, self.config, policy)
        skipped = len(self.config.layers_skip or ())
        sparse = self._row(self.graph, seq_len, plan.chosen) * self.heads
        return sparse * (self.layers - skipped) + dense / self.layers * skipped

    def _row(
        self, graph: FlowGraph | None, seq_len: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        sizes = self.kv_itemsize, itemsize(self.config.dtype)
        costs = row_costs(graph, self.geometry, *sizes, sharing=self.heads)
        config = self.config
        return costs.bytes(seq_len, chosen, config.block_reserved_bos, config.block_reserved_eos)
