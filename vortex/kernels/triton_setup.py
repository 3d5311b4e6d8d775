"""Triton, imported once and the right way: `from vortex.kernels.triton_setup import tl, triton`.

Without a GPU the kernels run under Triton's interpreter, which must be chosen before the first kernel is
defined. `TRITON_INTERPRET=0` in the environment keeps the compiler, to compile ahead of time for a GPU that
is not there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

__all__ = ["interpreted", "keep_kernels", "tl", "triton"]

logger = logging.getLogger(__name__)


def interpreted() -> bool:
    """Whether kernels run under the interpreter, on CPU tensors."""
    return bool(triton.knobs.runtime.interpret)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(folder)
        yield


def keep_kernels(module: object, folder: Path) -> None:
    """Let Triton keep what it makes of the kernels of a module, their launchers included, in `folder`,
    wherever it keeps everything else. `folder` may be read-only: what it lacks is kept there instead."""
    if interpreted():
        return
    if torch.cuda.is_available():
        try:
            with _kept_in(folder):
                triton.runtime.driver.active  # noqa: B018 (is made when it is first asked for, by a compiler)
        except OSError as error:  # once more, outside of it, when a kernel is compiled
            logger.warning("compilation_cache_dir: Triton cannot write to %s: %s", folder, error)
    for function in vars(module).values():
        if isinstance(function, triton.runtime.JITFunction):
            function._do_compile = _Compile(function._do_compile, folder)


class _Compile:
    """What a JITFunction compiles by, see `keep_kernels`."""

    def __init__(self, original: Any, folder: Path) -> None:
        self.original, self.folder = original, folder

    def __call__(self, *args: Any) -> Any:
        """Takes what `JITFunction._do_compile` takes, last whether this is only to compile."""
        try:
            with _kept_in(self.folder):
                kernel = self.original(*args)
                if kernel is not None and not args[-1]:
                    kernel._init_handles()  # makes the launcher
                return kernel
        except OSError as error:
            logger.warning("compilation_cache_dir: Triton cannot write to %s: %s", self.folder, error)
            return self.original(*args)


if interpreted():
    from vortex.kernels.interpreter import repair

    repair()
