"""LocalExecutor: worker processes of this machine, spoken to over pipes.

The supervising thread spawns them, because a worker dies with the thread that spawned it
(`worker.die_with_parent`): whatever becomes of the driver, its workers go with it, and by `guard.py` what
they have started.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from evaluators.executor.base import EvaluatorSpec, ExecutorError, Limits
from evaluators.executor.guard import Guard
from evaluators.executor.process import WorkerProcess
from evaluators.executor.supervisor import Event, Lost, Supervisor
from evaluators.measure.gpus import visible


def gpu_shares(each: int, workers: int) -> tuple[tuple[str, ...], ...]:
    """GPUs of this machine for each worker, none twice. Raises ExecutorError where there are too few."""
    if not each:
        return ()
    names = visible()
    if len(names) < each * workers:
        raise ExecutorError(
            f"{workers} workers need {each * workers} GPUs, {each} each, and this machine has {len(names)}: "
            "ask for fewer workers"
        )
    return tuple(names[start : start + each] for start in range(0, each * workers, each))


class LocalExecutor(Supervisor[WorkerProcess]):
    """See `Executor`."""

    name: Literal["local"] = "local"

    def __init__(
        self,
        evaluator: EvaluatorSpec,
        *,
        workers: int,
        limits: Limits | None = None,
        journal: Path | str | None = None,
    ) -> None:
        super().__init__("local", evaluator, workers, limits, journal)
        self._gpus = gpu_shares(evaluator.gpus, workers)
        self._guard = Guard()
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        if not self._closing:
            super().close()
            self._guard.close()
            self._selector.close()
            os.close(self._wake_out)
            os.close(self._wake_in)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._wake_in, b"x")

    def _spawn(self) -> WorkerProcess:
        taken = {worker.gpus for worker in self._fleet}
        free = next((share for share in self._gpus if share not in taken), None)
        process = WorkerProcess(self.setup, self.limits.start_timeout, self._guard, free)
        self._selector.register(process.replies, selectors.EVENT_READ, process)
        return process

    def _forget(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.replies)

    def _listen(self, timeout: float | None) -> Sequence[Event[WorkerProcess]]:
        events: list[Event[WorkerProcess]] = []
        for key, _ in self._selector.select(timeout):
            if key.fd == self._wake_out:
                os.read(self._wake_out, 4096)
                continue
            process: WorkerProcess = key.data
            try:
                replies, is_open = process.receive()
            except ValueError as error:
                events.append(
                    (process, Lost("error", f"the worker sent something that is not a reply: {error}"))
                )
                continue
            events += [(process, reply) for reply in replies]
            if not is_open:
                events.append((process, Lost("killed", process.epitaph())))
        return events
