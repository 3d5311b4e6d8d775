"""Whatever becomes of the driver, no process of its executor stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.evaluators.executor.processes import alive, eventually


def family(pid: int, marker: str) -> set[int]:
    """The driver's descendants, and every process that inherited its environment (Ray's workers are
    adopted)."""
    found = {child.pid for child in psutil.Process(pid).children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.environ().get("EXECUTOR_TEST") == marker:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found - {pid}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.parametrize("kind", ["local", "ray"])
def test_nothing_is_left(kind: str, how: signal.Signals, tmp_path: Path) -> None:
    marker = f"{os.getpid()}-{kind}-{how}"
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.evaluators.executor.driver", kind, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EXECUTOR_TEST": marker},
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "busy\n"
    pids = family(driver.pid, marker)
    assert len(pids) >= 2
    driver.send_signal(how)
    _, errors = driver.communicate(timeout=20)
    assert eventually(lambda: not any(alive(pid) for pid in pids), 15.0), [
        psutil.Process(pid).cmdline() for pid in pids if alive(pid)
    ]
    assert driver.returncode != 0
    if how is signal.SIGINT:
        assert "KeyboardInterrupt" in errors
