"""Which target runs where nobody names one, and what it needs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from tests.vortex.targets.agreement import DEVICE
from tests.vortex.targets.cases import centroid
from vortex.config import VortexConfig
from vortex.runtime.default_target import default_target
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession


def test_kernels_on_a_gpu_and_torch_elsewhere() -> None:
    assert [default_target(device) for device in ("cuda", "cpu")] == ["triton", "torch"]


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
