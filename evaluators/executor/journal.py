"""The workers' own record of what they started and finished: append-only, fsynced, apart from the ledger.

The ledger says what a run believes; this file says what was really evaluated. After a crash the two are
compared.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluators.executor.base import Job
from evaluators.measure.measurement import Split


class JournalEntry(BaseModel):
    """One line. A start without a finish of the same process is an evaluation that was cut short."""

    model_config = ConfigDict(frozen=True)

    event: Literal["start", "finish"]
    key: str
    split: Split
    prompts: int | None
    pid: int
    time: float
    status: Literal["done", "failed"] | None = None


class JournalError(ValueError):
    """A line other than the last cannot be read."""


class Journal:
    """JSON lines, safe for many processes: every append takes the file's lock, is one write, and is
    fsynced."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def start(self, job: Job) -> None:
        self._append(self._entry("start", job, None))

    def finish(self, job: Job, status: Literal["done", "failed"]) -> None:
        self._append(self._entry("finish", job, status))

    def read(self) -> list[JournalEntry]:
        """All complete lines; a torn last line (its writer died while writing) is left out."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        entries = []
        for number, line in enumerate(text.split(b"\n")[:-1], 1):
            try:
                entries.append(JournalEntry.model_validate_json(line))
            except ValidationError as error:
                raise JournalError(
                    f"{self.path}:{number} is not a journal entry: {error.errors()[0]['msg']}"
                ) from error
        return entries

    @staticmethod
    def _entry(
        event: Literal["start", "finish"], job: Job, status: Literal["done", "failed"] | None
    ) -> JournalEntry:
        prompts = None if job.prompts is None else len(job.prompts)
        return JournalEntry(
            event=event,
            key=job.key,
            split=job.split,
            prompts=prompts,
            pid=os.getpid(),
            time=time.time(),
            status=status,
        )

    def _append(self, entry: JournalEntry) -> None:
        line = entry.model_dump_json().encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            _cut_torn_line(handle)
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)


def _cut_torn_line(handle: int) -> None:
    """Under the lock nobody is writing, so an unfinished last line belongs to a dead process."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    tail_start = max(0, size - 65536)
    tail = os.pread(handle, size - tail_start, tail_start)
    os.ftruncate(handle, tail_start + tail.rfind(b"\n") + 1)
