"""A process that outlives its driver by a moment, to end the process groups of the driver's workers.

A worker dies with the driver by itself (`worker.die_with_parent`), what it has started does not. `python
guard.py` reads lines from its standard input, "+PID" for a group to watch and "-PID" for one that is gone.
When the input is closed, which is when the driver is gone or done, it kills the groups that are left.
Standard library only: it starts in milliseconds and holds nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path


class Guard:
    """The driver's end of the pipe. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__))],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._writing = threading.Lock()

    def watch(self, group: int) -> None:
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        self._tell(f"-{group}")

    def close(self) -> None:
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._writing, contextlib.suppress(BrokenPipeError):  # of a guard that was killed
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()


def main() -> None:
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            watched.add(group)
        else:
            watched.discard(group)
    for group in watched:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
