"""Where a measurement was made: machine and library versions, part of every record."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.measure.gpus import gpus

LIBRARIES = (
    *("torch", "transformers", "numpy", "tokenizers", "ray"),
    *("sglang", "flashinfer_python", "sglang-kernel", "triton"),
)


class LibraryVersion(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    version: str


class Environment(BaseModel):
    """Hardware and software of the process that measured. `driver`, `cuda`: versions, None without a GPU."""

    model_config = ConfigDict(frozen=True)

    python: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int
    libraries: tuple[LibraryVersion, ...]
    gpus: tuple[str, ...] = ()
    driver: str | None = None
    cuda: str | None = None

    def version_of(self, library: str) -> str | None:
        return next((entry.version for entry in self.libraries if entry.name == library), None)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def library_versions(names: tuple[str, ...] = LIBRARIES) -> tuple[LibraryVersion, ...]:
    """Versions from package metadata: nothing is imported for it. Libraries that are absent are left out."""
    found = []
    for name in names:
        try:
            found.append(LibraryVersion(name=name, version=version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


@cache
def current_environment() -> Environment:
    found = gpus()
    return Environment(
        python=platform.python_version(),
        system=platform.platform(),
        cpu=_cpu_name(),
        cores=_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        libraries=library_versions(),
        gpus=found.names,
        driver=found.driver,
        cuda=found.cuda,
    )
