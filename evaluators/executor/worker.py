"""The inside of a worker process: opens the evaluator once, then runs one job after another.

`python -m evaluators.executor.worker REQUESTS REPLIES DRIVER_PID` serves jobs over two inherited pipes
(LocalExecutor); a Ray actor holds a `Worker` of its own.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from evaluators.executor.base import Evaluator, Job
from evaluators.executor.journal import Journal
from evaluators.executor.messages import REPLY, Broken, Done, Failed, Ready, Reply, Setup

REASON_CHARS = 2000
PR_SET_PDEATHSIG = 1
OUT_OF_MEMORY_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "std::bad_alloc",
)


class Worker:
    """Runs jobs in this process. Never raises: what goes wrong is a reply."""

    def __init__(self, setup: Setup) -> None:
        self._journal = Journal(setup.journal) if setup.journal else None
        self._evaluator: Evaluator | None = None
        try:
            self._evaluator = load_factory(setup.evaluator.factory)(setup.evaluator.settings)
            if setup.memory_bytes is not None:
                limit_memory(setup.memory_bytes)
        except Exception:
            self.hello: Ready | Broken = Broken(reason=_last_lines(traceback.format_exc()))
        else:
            self.hello = Ready(pid=os.getpid(), host=socket.gethostname())

    def run(self, job: Job) -> Done | Failed:
        if self._evaluator is None:
            raise RuntimeError("this worker has no evaluator: its first reply said why")
        if self._journal:
            self._journal.start(job)
        begin = time.perf_counter()
        try:
            measurement = self._evaluator(job)
            reply: Done | Failed = Done(measurement=measurement, seconds=time.perf_counter() - begin)
        except MemoryError:
            reply = Failed(failure="memory", reason=_memory_reason(), seconds=time.perf_counter() - begin)
        except Exception as error:
            out_of_memory = any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)
            reason = _memory_reason() if out_of_memory else _last_lines(traceback.format_exc())
            seconds = time.perf_counter() - begin
            reply = Failed(failure="memory" if out_of_memory else "error", reason=reason, seconds=seconds)
        if self._journal:
            self._journal.finish(job, reply.type)
        return reply


def load_factory(path: str) -> Callable[[str], Evaluator]:
    """The callable that "module:name" names. Raises ImportError or AttributeError."""
    module, _, name = path.partition(":")
    factory: Callable[[str], Evaluator] = getattr(importlib.import_module(module), name)
    return factory


def limit_memory(allowance: int) -> None:
    """No more than `allowance` bytes of address space on top of what is mapped now (libraries, model,
    prompts)."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + allowance
    resource.setrlimit(
        resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the driver's spawning thread ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _memory_reason() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return f"out of memory: the worker's address space is limited to {limit / 2**20:.0f} MiB"


def _last_lines(text: str) -> str:
    return text.strip()[-REASON_CHARS:]


def serve(requests: int, replies: int) -> None:
    """Reads a Setup, then Jobs, one JSON document a line, until the driver closes the pipe."""
    with os.fdopen(requests, "rb") as inbox, os.fdopen(replies, "wb") as outbox:

        def reply(message: Reply) -> None:
            outbox.write(REPLY.dump_json(message) + b"\n")
            outbox.flush()

        worker = Worker(Setup.model_validate_json(inbox.readline()))
        reply(worker.hello)
        if isinstance(worker.hello, Broken):
            return
        for line in inbox:
            reply(worker.run(Job.model_validate_json(line)))


def main() -> None:
    requests, replies, driver = (int(argument) for argument in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle; it closes the workers
    die_with_parent(driver)
    serve(requests, replies)


if __name__ == "__main__":
    main()
