"""Compiles kernels for GPUs that are not there, in a process of its own: here Triton interprets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.kernels.launches import Launch

ARCHITECTURES = (90, 100)
SHARED_BYTES = {90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
"""Shared memory that one program may take, by compute capability (CUDA C++ programming guide, table of
technical specifications)."""


@dataclass(frozen=True)
class Built:
    """What became of a kernel: `error`, or bytes of shared memory, registers a thread, bytes of local memory
    a thread, where registers are spilled to, and `steps` (see `aot_worker.steps`)."""

    name: str
    architecture: int
    error: str = ""
    shared: int = 0
    registers: int = 0
    local: int = 0
    seconds: float = 0.0
    steps: str = ""

    @property
    def starts_first(self) -> bool:
        """Whether it lets the next kernel start before it waits. Two such kernels may not be neighbours:
        the prologue alone is one, and what is behind it waits."""
        return "t" in self.steps and self.steps.index("t") < self.steps.index("w")


def compiled(launches: Iterable[Launch], architectures: Iterable[int] = ARCHITECTURES) -> list[Built]:
    """Every different launch, compiled for each compute capability."""
    different = list({launch.key: launch.as_json() for launch in launches}.values())
    request = json.dumps({"launches": different, "architectures": list(architectures)})
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": paths}
    worker = Path(__file__).with_name("aot_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker)], input=request, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [Built(**built) for built in json.loads(done.stdout)]


def check(built: Iterable[Built], local: bool = False) -> None:
    """Raises AssertionError for a kernel that does not compile, needs more shared memory than there is, or
    (unless `local`) spills registers."""
    wrong = []
    for one in built:
        if one.error:
            wrong.append(f"{one.name} for sm_{one.architecture}: {one.error}")
        elif one.shared > SHARED_BYTES[one.architecture]:
            wrong.append(f"{one.name} for sm_{one.architecture}: {one.shared} bytes of shared memory")
        elif "t" in one.steps and "w" not in one.steps:
            wrong.append(f"{one.name} for sm_{one.architecture}: lets the next kernel start and never waits")
        elif one.starts_first and not one.name.endswith(":prologue"):
            wrong.append(f"{one.name} for sm_{one.architecture}: lets the next kernel start before it waits")
        elif one.local and not local:
            wrong.append(f"{one.name} for sm_{one.architecture}: spills {one.local} bytes a thread")
    assert not wrong, "\n".join(wrong)
