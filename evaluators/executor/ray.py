"""RayExecutor: the same workers as Ray actors, on the local cores or on a cluster that Ray is connected to.

Only JSON texts go to an actor and come back. Ray is started here unless the driver has started it, and
then also stopped here. Its daemons die with the driver (the kernel tells them), and the actors with the
daemons.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

from evaluators.executor.base import EvaluatorSpec, Job, Limits
from evaluators.executor.jobs import Attempt
from evaluators.executor.messages import REPLY, Ready, Reply, Setup
from evaluators.executor.process import worker_variables
from evaluators.executor.supervisor import Event, Lost, Supervisor

REASON_CHARS = 1500
RAY_VARIABLES = {"RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Actor:
    """Made a Ray actor by the executor: one evaluator, one job at a time."""

    def __init__(self, setup: str) -> None:
        from evaluators.executor.worker import Worker

        self._worker = Worker(Setup.model_validate_json(setup))

    def hello(self) -> str:
        return REPLY.dump_json(self._worker.hello).decode()

    def run(self, job: str) -> str:
        return REPLY.dump_json(self._worker.run(Job.model_validate_json(job))).decode()


class ActorWorker:
    """One actor as the driver sees it; what it says goes to `hear` in a thread of Ray's."""

    def __init__(self, actor: Any, start_timeout: float, hear: Callable[[ActorWorker, Any], None]) -> None:
        self._actor = actor
        self._hear = hear
        self._local_pid: int | None = None
        self.pid: int | None = None
        self.ready = False
        self.attempt: Attempt | None = None
        self.start_deadline = time.monotonic() + start_timeout
        self._expect(actor.hello.remote())

    def send(self, job: Job) -> None:
        self._expect(self._actor.run.remote(job.model_dump_json()))

    def event(self, future: Any) -> Reply | Lost:
        """What a finished call means."""
        error = future.exception()
        if error is not None:
            return _lost(error)
        reply = REPLY.validate_json(future.result())
        if isinstance(reply, Ready) and reply.host == socket.gethostname():
            self._local_pid = reply.pid
        return reply

    def end(self) -> None:
        """A process of this machine is also killed by its id, with what it started: Ray alone takes 1.8 s for
        one that hangs."""
        import ray

        ray.kill(self._actor, no_restart=True)
        if self._local_pid is not None:
            kill_tree(self._local_pid)

    def _expect(self, reference: Any) -> None:
        reference.future().add_done_callback(lambda future: self._hear(self, future))


class RayExecutor(Supervisor[ActorWorker]):
    """See `Executor`. Ray must be started by a thread that lives as long as the driver: its daemons die
    with it."""

    name: Literal["ray"] = "ray"

    def __init__(
        self,
        evaluator: EvaluatorSpec,
        *,
        workers: int,
        limits: Limits | None = None,
        journal: Path | str | None = None,
    ) -> None:
        ray = import_ray()
        super().__init__("ray", evaluator, workers, limits, journal)
        self._events: queue.SimpleQueue[tuple[ActorWorker, Any] | None] = queue.SimpleQueue()
        self._session = None if ray.is_initialized() else RaySession(workers, workers * evaluator.gpus)
        needs = {"num_cpus": 1, "num_gpus": evaluator.gpus}
        self._actor_class: Any = ray.remote(max_restarts=0, max_task_retries=0, **needs)(Actor)
        self._thread.start()

    def close(self) -> None:
        if not self._closing:
            super().close()
            if self._session:
                self._session.close()

    def _wake(self) -> None:
        self._events.put(None)

    def _spawn(self) -> ActorWorker:
        actor = self._actor_class.remote(self.setup.model_dump_json())
        return ActorWorker(actor, self.limits.start_timeout, lambda *said: self._events.put(said))

    def _listen(self, timeout: float | None) -> Sequence[Event[ActorWorker]]:
        try:
            said = self._events.get(timeout=timeout)
        except queue.Empty:
            return []
        return [(said[0], said[0].event(said[1]))] if said else []


class RaySession:
    """A quiet Ray of this machine only: no dashboard, no token, no workers' log lines in the driver's
    output.

    The thread that opens it must live as long as the driver: the kernel ends Ray's daemons with that
    thread.
    """

    def __init__(self, cores: int, gpus: int = 0) -> None:
        ray = import_ray()
        script = Path(__file__).with_name("reaper.py")
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        with _variables({**RAY_VARIABLES, **worker_variables()}):
            context = ray.init(
                address="local",
                num_cpus=cores,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(context.address_info["session_dir"].encode())
        self._reaper.stdin.flush()

    def close(self) -> None:
        import_ray().shutdown()
        self._reaper.communicate()


def kill_tree(pid: int) -> None:
    """Kills a process and its descendants. It is stopped first, so that it starts no more of them."""
    try:
        process = psutil.Process(pid)
        process.suspend()
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def import_ray() -> Any:
    """Ray, without the lines about workers that died: the executor reports those itself."""
    with _variables({"RAY_DEDUP_LOGS_SKIP_REGEX": "."}):  # read when Ray is imported
        import ray

    return ray


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Ray's daemons, and through them its workers, inherit the driver's environment as it is when they
    start."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _lost(error: BaseException) -> Lost:
    import ray

    text = str(error).strip()[:REASON_CHARS]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return Lost("memory", f"Ray ended the worker because memory ran short: {text}")
    if isinstance(error, ray.exceptions.RayActorError):
        return Lost("killed", f"the worker died: {text}")
    return Lost("error", f"{type(error).__name__}: {text}")
