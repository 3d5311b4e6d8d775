"""What both executors are: a thread of the driver that deals jobs out and replaces broken workers.

It does so while the driver is busy with something else, a slow proposer for example. A kind of worker is
added by giving `_spawn`, `_listen` and `_wake`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Literal, Protocol, Self, TypeVar

from evaluators.executor.base import EvaluatorSpec, ExecutorError, FailureKind, Job, Limits, Outcome
from evaluators.executor.jobs import Attempt, JobQueue
from evaluators.executor.messages import Broken, Failed, Ready, Reply, Setup

START_ATTEMPTS = 3


@dataclass(frozen=True)
class Lost:
    """A worker is gone, or speaks nonsense."""

    failure: FailureKind
    reason: str


class WorkerHandle(Protocol):
    """One worker as the driver sees it. The supervisor sets `ready` and `attempt`."""

    pid: int | None
    ready: bool
    attempt: Attempt | None
    start_deadline: float

    def send(self, job: Job) -> None:
        """Starts a job; must not block."""

    def end(self) -> None:
        """Kills the worker, whatever state it is in."""


H = TypeVar("H", bound=WorkerHandle)
Event = tuple[H, Reply | Lost]


class Supervisor(ABC, Generic[H]):
    """An `Executor` over workers of one kind. The journal, if a path is given, is written by the workers."""

    def __init__(
        self,
        executor: Literal["local", "ray"],
        evaluator: EvaluatorSpec,
        workers: int,
        limits: Limits | None,
        journal: Path | str | None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: at least one worker is needed")
        self.workers = workers
        self.limits = limits or Limits()
        self.setup = Setup(
            evaluator=evaluator,
            memory_bytes=None if evaluator.gpus else self.limits.memory_bytes,
            journal=str(Path(journal).resolve()) if journal else None,
        )
        self._queue = JobQueue(executor, self.limits)
        self._changed = threading.Condition()
        self._fleet: list[H] = []
        self._failed_starts = 0
        self._fatal: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._supervise, name=f"{executor}-executor", daemon=True)

    @abstractmethod
    def _spawn(self) -> H:
        """A new worker, which will say `Ready` or `Broken`."""

    @abstractmethod
    def _listen(self, timeout: float | None) -> Sequence[Event[H]]:
        """What workers have said by now; waits until there is something, a wake-up, or the time-out."""

    @abstractmethod
    def _wake(self) -> None:
        """Makes `_listen` return; called from any thread."""

    def _forget(self, worker: H) -> None:
        """A worker is about to be ended: listen to it no more."""

    @property
    def pending(self) -> int:
        with self._changed:
            return self._queue.pending

    def submit(self, job: Job) -> None:
        with self._changed:
            self._check()
            self._queue.submit(job)
        self._wake()

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                ready = self._queue.take()
                if ready or self._queue.pending == 0:
                    return ready
                self._check()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return []
                self._changed.wait(left)

    def pids(self) -> tuple[int, ...]:
        with self._changed:
            return tuple(w.pid for w in self._fleet if w.ready and w.pid is not None)

    def close(self) -> None:
        with self._changed:
            if self._closing:
                return
            self._closing = True
        self._wake()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._closing:
            raise ExecutorError("the executor is closed")
        if self._fatal:
            raise ExecutorError(f"no worker can open the evaluator: {self._fatal}")

    # Everything below runs in the supervising thread.

    def _supervise(self) -> None:
        try:
            while not self._closing:
                with self._changed:
                    self._refill()
                    self._deal()
                for worker, message in self._listen(self._pause()):
                    with self._changed:
                        if worker in self._fleet:
                            self._handle(worker, message)
                with self._changed:
                    self._end_overdue()
        except BaseException as error:
            with self._changed:
                self._fatal = f"the supervising thread failed: {error!r}"
                self._changed.notify_all()
            raise
        finally:
            with self._changed:
                for worker in self._fleet:
                    self._forget(worker)
                    worker.end()
                self._fleet.clear()
                self._changed.notify_all()

    def _refill(self) -> None:
        while len(self._fleet) < self.workers and not self._fatal:
            self._fleet.append(self._spawn())

    def _deal(self) -> None:
        for worker in self._fleet:
            if worker.ready and worker.attempt is None:
                worker.attempt = self._queue.next()
                if worker.attempt is None:
                    return
                worker.send(worker.attempt.job)

    def _pause(self) -> float | None:
        deadlines = [deadline for deadline in map(_deadline, self._fleet) if deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _handle(self, worker: H, message: Reply | Lost) -> None:
        if isinstance(message, Ready):
            worker.ready, worker.pid = True, message.pid
            self._failed_starts = 0
        elif isinstance(message, Broken):
            self._replace(worker, "error", message.reason)
        elif isinstance(message, Lost):
            self._replace(worker, message.failure, message.reason)
        elif worker.attempt is not None:
            attempt, worker.attempt = worker.attempt, None
            self._queue.replied(attempt, message, worker.pid)
            self._changed.notify_all()
            if isinstance(message, Failed) and message.failure == "memory":
                self._replace(worker, "memory", message.reason)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for worker in list(self._fleet):
            deadline = _deadline(worker)
            if deadline is not None and now >= deadline:
                limit = worker.attempt.limit if worker.attempt else self.limits.start_timeout
                self._replace(worker, "timeout", f"no answer within {limit:g} s: the worker was killed")

    def _replace(self, worker: H, failure: FailureKind, reason: str) -> None:
        """Ends a worker; its job, if it had one, is tried again or fails. `_refill` starts the next
        worker."""
        self._forget(worker)
        worker.end()
        self._fleet.remove(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                self._fatal = reason
        if worker.attempt is not None:
            self._queue.broke(worker.attempt, failure, reason, worker.pid)
        self._changed.notify_all()


def _deadline(worker: WorkerHandle) -> float | None:
    """Monotonic seconds until which something must be heard; None for an idle worker."""
    if not worker.ready:
        return worker.start_deadline
    return worker.attempt.deadline if worker.attempt else None
