"""Which line of the user's file is running."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType

_SHIPPED = "vortex.flow.algorithms"
_LIBRARIES = sys.stdlib_module_names | {"vortex", "torch", "numpy"}


def _is_user(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] not in _LIBRARIES or name.startswith(_SHIPPED)


def user_line() -> int | None:
    """The line of the innermost running frame that is not of Vortex or another library."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_user(frame):
        frame = frame.f_back
    return frame.f_lineno if frame is not None else None


def raising_line(trace: TracebackType | None, filename: str) -> int | None:
    """The last line of `filename` in a traceback."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
