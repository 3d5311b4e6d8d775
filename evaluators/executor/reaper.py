"""A process that outlives its driver by a moment, to end what the driver left.

When the driver is killed, the kernel ends Ray's raylet, and the raylet's death ends the actors; but two
agents of the raylet stay for a minute or more. `python reaper.py DRIVER_PID` waits until its standard input
is closed, which is when the driver is gone or done. It then kills every process that holds a file open in
the folder whose path it was sent there: Ray's session folder, where each of its processes writes its log.
Standard library only: it starts in milliseconds and holds nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

ROUNDS = 20
PAUSE = 0.1


def holders(folder: str, spared: set[int]) -> list[int]:
    """Processes with an open file in `folder`."""
    prefix = folder.rstrip("/") + "/"
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if pid not in spared and any(p.startswith(prefix) for p in open_files(pid))]


def open_files(pid: int) -> Iterator[str]:
    """Paths of the open files of a process; none where it has ended or is another user's."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue


def reap(folder: str, spared: set[int]) -> None:
    """Kills until none is left: a process may have been starting another."""
    for _ in range(ROUNDS):
        pids = holders(folder, spared)
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(PAUSE)


def main() -> None:
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    folder = sys.stdin.read().strip()
    if folder:
        reap(folder, {os.getpid(), int(sys.argv[1])})


if __name__ == "__main__":
    main()
