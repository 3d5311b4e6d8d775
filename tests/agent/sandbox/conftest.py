from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.sandbox import Limits, Sandbox
from tests.vortex.check.sources import GOOD

REACH_OS = """
loaded = ().__class__.__base__.__subclasses__()
os = [c for c in loaded if c.__name__ == "_wrap_close"][0].__init__.__globals__
sys = os["sys"]
python = sys.modules["builtins"]
"""
"""Puts the globals of the module `os` into `os`: what code that got past the first layer starts from."""


@pytest.fixture(scope="session")
def good() -> str:
    return GOOD


@pytest.fixture(scope="session")
def reach_os() -> str:
    return REACH_OS


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(cpu_s=0.3, wall_s=2.0)) as opened:
        yield opened
