"""The GPUs of this machine, asked for in a process of its own: the asking one keeps no CUDA context."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_ASK = (
    "import json, torch; n = torch.cuda.device_count(); "
    "names = [torch.cuda.get_device_name(i) for i in range(n)]; "
    "print(json.dumps({'names': names, 'cuda': torch.version.cuda}))"
)
_DRIVER = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
SECONDS = 120.0


class Gpus(BaseModel):
    """Names of the GPUs that this process may use; `cuda` is the version that torch was built with."""

    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...] = ()
    driver: str | None = None
    cuda: str | None = None


@cache
def gpus() -> Gpus:
    """Takes seconds on the first call where there is an NVIDIA driver, and no time where there is none."""
    if not any(Path("/dev").glob("nvidia[0-9]*")) and shutil.which("nvidia-smi") is None:
        return Gpus()
    found = json.loads(_said([sys.executable, "-c", _ASK]) or "{}")
    driver = _said(list(_DRIVER)).strip().split("\n")[0] if found.get("names") else ""
    return Gpus(**found, driver=driver or None) if found.get("names") else Gpus()


def visible() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls each of the GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(gpus().names)
    if listed is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in listed.split(",") if name.strip())[:count]


def _said(command: list[str]) -> str:
    """The standard output of a command; "" where it cannot run or fails."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout if told.returncode == 0 else ""
