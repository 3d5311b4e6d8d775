"""Targets: what runs a graph. `reference` is the definition of right, `torch` the default."""

from __future__ import annotations

from vortex.errors import ConfigError, unknown
from vortex.targets.base import LayerCache, Program, Target
from vortex.targets.reference import ReferenceTarget
from vortex.targets.torch import TorchTarget

TARGETS: dict[str, Target] = {target.name: target for target in (ReferenceTarget(), TorchTarget())}


def get_target(name: str) -> Target:
    """The target of that name; ConfigError lists those that exist."""
    if name not in TARGETS:
        raise ConfigError(unknown("target", name, TARGETS))
    return TARGETS[name]


__all__ = ["TARGETS", "LayerCache", "Program", "ReferenceTarget", "Target", "TorchTarget", "get_target"]
