"""Before anything imports torch: one thread a process. Several test processes with several threads each
would spend most of their time waiting for one another."""

import os
from importlib.util import find_spec

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if find_spec("sglang") is None:
        terminalreporter.write_line(
            "tests/sgl: not collected, SGLang is in another environment (`make test` runs both)"
        )
