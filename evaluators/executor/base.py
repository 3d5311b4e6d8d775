"""What an executor is: jobs in, outcomes out, and a broken evaluation costs itself only."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluators.measure.measurement import Measurement, Split

FailureKind = Literal["timeout", "killed", "memory", "error"]
GIB = 1024**3


class Job(BaseModel):
    """One evaluation, as data: a worker never sees candidate code.

    key: the candidate's hash.
    graph: FlowGraph JSON; None is dense attention.
    config: VortexConfig JSON.
    prompts: positions in the split's workload; None is all of them.
    timeout: seconds for one attempt; None takes the executor's.
    """

    model_config = ConfigDict(frozen=True)

    key: str = Field(min_length=1)
    split: Split
    graph: str | None = None
    config: str = "{}"
    prompts: tuple[int, ...] | None = None
    timeout: float | None = Field(default=None, gt=0)


class EvaluatorSpec(BaseModel):
    """Which evaluator the workers run: `factory` is "module:callable", called once per worker with
    `settings`, a JSON text that the factory validates. What it returns is called with each Job and gives a
    Measurement. Each worker has `gpus` GPUs to itself."""

    model_config = ConfigDict(frozen=True)

    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    settings: str = "{}"
    gpus: int = Field(default=0, ge=0)


class Limits(BaseModel):
    """What one worker may use. `memory_bytes` comes on top of what the opened evaluator holds already. It is
    not kept where there are GPUs, whose driver maps far more address space than there is memory."""

    model_config = ConfigDict(frozen=True)

    timeout: float = Field(default=120.0, gt=0, description="seconds for one attempt at a job")
    start_timeout: float = Field(default=120.0, gt=0, description="seconds to open the evaluator")
    memory_bytes: int = Field(default=4 * GIB, gt=0)
    attempts: int = Field(default=2, ge=1, description="all but the first are retries in a fresh worker")


class Outcome(BaseModel):
    """What became of a job. `reason` and `failure` are set exactly when it failed, `measurement` when it
    is done."""

    model_config = ConfigDict(frozen=True)

    job: Job
    status: Literal["done", "failed"]
    measurement: Measurement | None = None
    failure: FailureKind | None = None
    reason: str | None = None
    executor: Literal["local", "ray"]
    worker_pid: int | None = None
    attempts: int = Field(ge=1)
    seconds: float = Field(ge=0)

    @model_validator(mode="after")
    def _fields_fit_the_status(self) -> Outcome:
        if (self.status == "done") != (self.measurement is not None):
            raise ValueError("a job that is done has a measurement, a failed one has none")
        if (self.status == "failed") != (self.reason is not None and self.failure is not None):
            raise ValueError("a failed job has a failure and a reason, one that is done has none")
        return self


class Evaluator(Protocol):
    """Runs in a worker process; keeps its model and prompts open between jobs."""

    def __call__(self, job: Job) -> Measurement: ...


class Executor(Protocol):
    """Places jobs on worker processes.

    * `submit` returns at once; `wait` gives outcomes in the order in which they finish, each job exactly one.
    * A worker runs one job at a time. One that hangs, dies or exceeds its memory is replaced, and its job
      is tried again in a fresh worker until `Limits.attempts` are used. An exception of the evaluator is
      not retried: it would come again.
    * No process is left when the executor is closed, when the driver is interrupted, or when it is killed.
    * One thread of the driver uses an executor at a time.
    """

    @property
    def name(self) -> Literal["local", "ray"]: ...

    @property
    def workers(self) -> int: ...

    @property
    def pending(self) -> int:
        """Jobs submitted whose outcome `wait` has not given yet."""

    def submit(self, job: Job) -> None:
        """Queues a job. Raises ExecutorError after `close`."""

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """Outcomes that are ready, at least one. Empty at the time-out (0 polls) and when nothing is pending.

        Raises ExecutorError when no worker can open the evaluator."""

    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready or busy now."""

    def close(self) -> None:
        """Ends all workers; jobs without an outcome are dropped. May be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ExecutorError(RuntimeError):
    """The executor itself cannot work, through no fault of a job."""
