"""Before anything imports torch or Triton: one thread a process, as several processes with several threads
each would spend most of their time waiting for one another; and Triton's interpreter, unless the tests run on
a GPU (`VORTEX_DEVICE=cuda`)."""

import os
from importlib.util import find_spec

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ.get("VORTEX_DEVICE", "cpu") == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: left out of `make test`, run by `make test-all`")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if find_spec("sglang") is None:
        terminalreporter.write_line(
            "tests/sgl: not collected, SGLang is in another environment (`make test` runs both)"
        )
