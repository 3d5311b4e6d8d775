"""The target where nobody names one: generated kernels on a GPU that runs them, PyTorch elsewhere."""

from __future__ import annotations

import logging
import sys
from functools import cache

logger = logging.getLogger(__name__)


def default_target(device: str) -> str:
    """The name of the target on a type of device ("cuda", "cpu"). Of a GPU that does not run the kernels a
    warning says why, once. Where nothing has imported torch, settings are checked for some other machine:
    nobody asks the GPU of this one."""
    if device != "cuda":
        return "torch"
    if "torch" not in sys.modules:
        return "triton"
    from vortex.kernels.cuda import refusal

    reason = refusal()
    if reason is not None:
        _warn(reason)
    return "triton" if reason is None else "torch"


@cache
def _warn(reason: str) -> None:
    logger.warning("vortex: the target is 'torch', which plans on the host and is slow: %s", reason)
