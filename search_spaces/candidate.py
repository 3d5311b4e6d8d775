"""A candidate: the graph of a flow and its knobs, and the hash that is its identity."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from search_spaces.knobs import Knobs
from vortex.errors import VortexError

if TYPE_CHECKING:
    from vortex.config import VortexConfig
    from vortex.graph.geometry import Geometry
    from vortex.graph.model import FlowGraph


@dataclass(frozen=True)
class Candidate:
    """What is measured: an algorithm and how much it may read.

    Two candidates are the same exactly when their hashes are: flow names, op order, unused ops and the
    policy's spelling do not count, and the default policy written out is the default policy.
    """

    graph: FlowGraph
    knobs: Knobs

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) over the graph's hash and the canonical knobs. Raises PolicyError for a policy
        outside the checked subset, GraphError for a graph that cannot be made canonical."""
        document = json.dumps(
            [self.graph.hash, _canonical(self.knobs)], separators=(",", ":"), sort_keys=True
        )
        return hashlib.sha256(document.encode()).hexdigest()

    def serves(self, geometry: Geometry) -> bool:
        """Whether the graph is for models of this kind and runs at their sizes with these knobs' block
        size."""
        if self.graph.kind != geometry.kind:
            return False
        try:
            self.graph.instantiate(replace(geometry, block_size=self.knobs.block_size))
        except VortexError:
            return False
        return True

    def config(self, module_name: str = "candidate", module_path: str | None = None) -> VortexConfig:
        """The published config with these knobs; `module_name` is the registered flow's name."""
        from vortex.config import VortexConfig

        knobs = self.knobs
        return VortexConfig.model_validate(
            {
                "module_name": module_name,
                "module_path": module_path,
                "block_size": knobs.block_size,
                "topk_val": knobs.topk_val,
                "topk_ratio": knobs.topk_ratio,
                "block_reserved_bos": knobs.bos,
                "block_reserved_eos": knobs.eos,
                "layers_skip": knobs.layers_skip or None,
                "schedule_policy": knobs.policy,
            }
        )


def canonical_policy(policy: str | None) -> str | None:
    """The policy's stable text, None for the default one however it is spelled. Raises PolicyError."""
    if policy is None:
        return None
    from vortex.budget import parse_policy

    parsed = parse_policy(policy)
    return None if parsed.is_default else parsed.canonical()


def _canonical(knobs: Knobs) -> dict[str, object]:
    document: dict[str, object] = knobs.model_dump(mode="json")
    document["policy"] = canonical_policy(knobs.policy)
    # The budget uses the ratio as a float32, so two ratios that round to the same one are the same knob.
    document["topk_ratio"] = struct.unpack("<f", struct.pack("<f", knobs.topk_ratio))[0] + 0.0
    return document
