"""Stands in for SGLang's compiled kernels, which are published for GPUs only.

On a CPU without AMX SGLang uses its PyTorch code instead, but takes the names of the CPU kernels at import.
Every other name is missing, so that SGLang's own fall-backs are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

__version__ = "0.0.0"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if not name.endswith("_cpu"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def kernel(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} is not compiled for this machine")

    return kernel
