"""Triton, imported once and the right way: `from vortex.kernels.triton_setup import tl, triton`.

Without a GPU the kernels run under Triton's interpreter, which must be chosen before the first kernel is
defined. `TRITON_INTERPRET=0` in the environment keeps the compiler, to compile ahead of time for a GPU that
is not there.
"""

from __future__ import annotations

import os

import torch

from vortex.errors import ConfigError

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ConfigError(
        f"the triton kernels need the package triton 3.6, which cannot be imported here ({error}): "
        "install it, or use the target 'torch'"
    ) from None

__all__ = ["interpreted", "tl", "triton"]


def interpreted() -> bool:
    """Whether kernels run under the interpreter, on CPU tensors."""
    return bool(triton.knobs.runtime.interpret)


if interpreted():
    from vortex.kernels.interpreter import repair

    repair()
