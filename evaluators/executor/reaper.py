"""A process that outlives its driver by a moment, to end what the driver left.

When the driver is killed, the kernel ends Ray's raylet, and the raylet's death ends the actors; but two
agents of the raylet stay for a minute or more. `python reaper.py NAME=VALUE` waits until its standard
input is closed, which is when the driver is gone or done, and then kills every process that has NAME=VALUE
in its environment. Standard library only: it starts in milliseconds and holds nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ROUNDS = 20
PAUSE = 0.1


def marked(mark: bytes) -> list[int]:
    """Processes with this entry in the environment they were started with."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:  # ended meanwhile, or another user's
                continue
    return found


def reap(mark: str) -> None:
    """Kills until none is left: a process may have been starting another."""
    for _ in range(ROUNDS):
        pids = marked(mark.encode())
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(PAUSE)


if __name__ == "__main__":
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    reap(sys.argv[1])
