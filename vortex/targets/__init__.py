"""Targets: what runs a graph. `reference` is the definition of right, `torch` the default, `triton` generates
kernels and is there where triton is installed."""

from __future__ import annotations

from importlib.util import find_spec

from vortex.errors import ConfigError, unknown
from vortex.targets.base import LayerCache, Program, Target
from vortex.targets.reference import ReferenceTarget
from vortex.targets.torch import TorchTarget
from vortex.targets.triton import TritonTarget

TARGETS: dict[str, Target] = {target.name: target for target in (ReferenceTarget(), TorchTarget())}
if find_spec("triton") is not None:
    TARGETS[TritonTarget.name] = TritonTarget()


def get_target(name: str) -> Target:
    """The target of that name; ConfigError lists those that exist."""
    if name not in TARGETS:
        raise ConfigError(unknown("target", name, TARGETS))
    return TARGETS[name]


__all__ = [
    "TARGETS",
    "LayerCache",
    "Program",
    "ReferenceTarget",
    "Target",
    "TorchTarget",
    "TritonTarget",
    "get_target",
]
