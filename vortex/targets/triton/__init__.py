"""The `triton` target: flows as generated GPU kernels. Start reading at `schedule.py`, then `source.py`."""

from vortex.targets.triton.program import TritonProgram
from vortex.targets.triton.target import TritonTarget

__all__ = ["TritonProgram", "TritonTarget"]
