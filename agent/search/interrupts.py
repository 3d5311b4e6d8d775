"""Ctrl-C and SIGTERM: both raise KeyboardInterrupt once; more of them do not disturb the closing down."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def install() -> None:
    """Also to be called after libraries that install handlers of their own (Ray) have started."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
