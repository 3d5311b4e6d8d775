"""Which process drives a run: host, pid and start time, for a pid may be used again."""

from __future__ import annotations

import json
import os
import socket


def me() -> str:
    """This process, as it is written into the ledger."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})


def is_alive(holder: str) -> bool:
    """Whether the process still runs. One on another host cannot be seen and counts as gone."""
    facts = json.loads(holder)
    if facts["host"] != socket.gethostname() or facts["pid"] == os.getpid():
        return False
    return facts["started"] is not None and _started(facts["pid"]) == facts["started"]


def describe(holder: str) -> str:
    facts = json.loads(holder)
    return f"{facts['pid']} on {facts['host']}"


def _started(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
