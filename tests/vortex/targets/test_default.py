"""Which target runs where nobody names one, and what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.vortex.targets.agreement import DEVICE
from tests.vortex.targets.cases import centroid
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.kernels import cuda
from vortex.runtime import default_target as defaults
from vortex.runtime.default_target import default_target
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession


def test_kernels_on_a_gpu_and_torch_elsewhere() -> None:
    assert [default_target(device) for device in ("cuda", "cpu")] == ["triton", "torch"]


GPUS = {"H200": (9, 0, 227), "B200": (10, 0, 227), "A100": (8, 0, 163), "RTX 5090": (12, 0, 99)}
"""Compute capability, and KB of shared memory that a block may have."""


def install(monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    major, minor, shared = GPUS[gpu]
    found = SimpleNamespace(major=major, minor=minor, shared_memory_per_block_optin=shared << 10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, minor))
    monkeypatch.setattr(defaults, "_warn", cache(defaults._warn.__wrapped__))


@pytest.mark.parametrize(("gpu", "name"), [("H200", "sm_90a"), ("B200", "sm_100a")])
def test_gpus_that_run_the_kernels(monkeypatch: pytest.MonkeyPatch, gpu: str, name: str) -> None:
    install(monkeypatch, gpu)
    assert cuda.architecture() == name
    assert default_target("cuda") == "triton"


@pytest.mark.parametrize(
    ("gpu", "reason"),
    [("A100", r"9\.0 or later, this one has 8\.0"), ("RTX 5090", "need 227 KB of .*, this GPU has 99")],
)
def test_gpus_that_do_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gpu: str, reason: str
) -> None:
    """An error where the kernels are asked for by name, a warning where nobody asks."""
    install(monkeypatch, gpu)
    with pytest.raises(ConfigError, match=reason + ": use the target 'torch'"):
        cuda.architecture()
    assert [default_target("cuda") for _ in range(2)] == ["torch", "torch"]
    (said,) = caplog.messages
    assert re.search("the target is 'torch', .*: .*" + reason, said)


def test_a_session_takes_the_target_of_its_device() -> None:
    pool = KVPool.allocate(1, 16, torch.float32, DEVICE)
    pages = PageTable.contiguous(np.array([0]), np.array([1]))

    def session(target: str | None) -> DecodeSession:
        return DecodeSession([pool], pages, np.array([PAGE - 1]), 4, centroid(), VortexConfig(), target)

    assert session(None).target.name == default_target(DEVICE.type)
    assert session("reference").target.name == "reference"


def test_kernels_without_triton_say_what_is_missing() -> None:
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "from vortex.errors import ConfigError\n"
        "try:\n"
        "    import vortex.kernels.triton_setup\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "need the package triton 3.6" in done.stdout
    assert "or use the target 'torch'" in done.stdout
