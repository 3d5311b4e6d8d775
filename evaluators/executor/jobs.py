"""What both executors share: which job waits, which attempt runs, and which outcome is due."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from evaluators.executor.base import FailureKind, Job, Limits, Outcome
from evaluators.executor.messages import Done, Failed


@dataclass
class Attempt:
    """One job on its way: `begin` is when the running attempt started (monotonic seconds)."""

    job: Job
    submitted: float = field(default_factory=time.monotonic)
    number: int = 0
    begin: float = 0.0
    limit: float = 0.0

    @property
    def deadline(self) -> float:
        return self.begin + self.limit


class JobQueue:
    """Jobs in order of submission; a job whose worker broke goes back to the head."""

    def __init__(self, executor: Literal["local", "ray"], limits: Limits) -> None:
        self._executor: Literal["local", "ray"] = executor
        self._limits = limits
        self._waiting: deque[Attempt] = deque()
        self._ready: list[Outcome] = []
        self.pending = 0

    def submit(self, job: Job) -> None:
        self.pending += 1
        self._waiting.append(Attempt(job))

    def next(self) -> Attempt | None:
        """The attempt to start now, its clock running."""
        if not self._waiting:
            return None
        attempt = self._waiting.popleft()
        attempt.number += 1
        attempt.begin = time.monotonic()
        attempt.limit = attempt.job.timeout or self._limits.timeout
        return attempt

    def replied(self, attempt: Attempt, reply: Done | Failed, pid: int | None) -> None:
        """The worker is alive and answered. Running out of memory is tried again, an exception is not."""
        if isinstance(reply, Done):
            outcome = Outcome(
                job=attempt.job,
                status="done",
                measurement=reply.measurement,
                executor=self._executor,
                worker_pid=pid,
                attempts=attempt.number,
                seconds=reply.seconds,
            )
            self._ready.append(outcome)
        else:
            self.broke(attempt, reply.failure, reply.reason, pid, retry=reply.failure == "memory")

    def broke(
        self, attempt: Attempt, failure: FailureKind, reason: str, pid: int | None, retry: bool = True
    ) -> None:
        """The attempt failed: tried again in a fresh worker while attempts are left, then an outcome."""
        if retry and attempt.number < self._limits.attempts:
            self._waiting.appendleft(attempt)
            return
        self._ready.append(
            Outcome(
                job=attempt.job,
                status="failed",
                failure=failure,
                reason=reason,
                executor=self._executor,
                worker_pid=pid,
                attempts=attempt.number,
                seconds=time.monotonic() - attempt.begin,
            )
        )

    def take(self) -> list[Outcome]:
        """Outcomes not given yet, in the order in which they came about."""
        ready, self._ready = self._ready, []
        self.pending -= len(ready)
        return ready
