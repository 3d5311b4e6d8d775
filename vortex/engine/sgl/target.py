"""Which target runs a flow in SGLang: generated kernels on a GPU, `torch` on a CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vortex.errors import ConfigError, unknown

KERNELS, TORCH = "triton", "torch"
VARIABLE = "VORTEX_TARGET"
"""Of the environment: overrules the default, in the main process and in the schedulers that inherit it. On a
CPU the kernels run under Triton's interpreter; on a GPU `torch` plans on the host, without CUDA graphs."""


def target_name(device: str) -> str:
    """The target on a device ("cuda", "cpu"). Raises ConfigError for a name that is none."""
    from vortex.runtime.default_target import default_target

    name = os.environ.get(VARIABLE) or default_target(device)
    if name not in (KERNELS, TORCH):
        raise ConfigError(f"{VARIABLE}: {unknown('target', name, (KERNELS, TORCH))}")
    return name


def device_of(engine: Mapping[str, Any]) -> str:
    """Where SGLang runs, from its arguments: on a GPU unless they say otherwise."""
    return str(engine.get("device") or "cuda").partition(":")[0]


def runs_graphs(engine: Mapping[str, Any]) -> bool:
    """Whether CUDA graphs may hold decode steps."""
    device = device_of(engine)
    return device == "cuda" and target_name(device) == KERNELS
