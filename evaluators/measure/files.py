"""Files that several processes share: one makes them, the others find them complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel lets go of it when that process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_synced(path: Path, text: str) -> None:
    """On disk when this returns."""
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def put_file(path: Path, text: str) -> None:
    """At `path` complete or not at all; what a killed writer left beside it is overwritten."""
    partial = path.with_name(f".{path.name}.partial")
    write_synced(partial, text)
    partial.replace(path)
