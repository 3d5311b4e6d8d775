"""One local worker process as the driver sees it: two pipes, a log, and the attempt that it works on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time

from evaluators.executor.base import Job
from evaluators.executor.guard import Guard
from evaluators.executor.jobs import Attempt
from evaluators.executor.messages import REPLY, Reply, Setup

PIPE_BYTES = 1 << 20  # a job must fit: the supervisor may not block on a stopped worker
LOG_CHARS = 1500


class WorkerProcess:
    """Starts `python -m evaluators.executor.worker`; it finds every module that the driver finds.

    It leads a process group, which ends with it. `gpus`: those that it sees, by their names in
    CUDA_VISIBLE_DEVICES; None leaves that as it is.
    """

    def __init__(
        self, setup: Setup, start_timeout: float, guard: Guard, gpus: tuple[str, ...] | None = None
    ) -> None:
        request_out, self._requests = os.pipe()
        self.replies, reply_in = os.pipe()
        fcntl.fcntl(self._requests, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.gpus = gpus
        seen = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        arguments = [str(request_out), str(reply_in), str(os.getpid())]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evaluators.executor.worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(request_out, reply_in),
            env={**os.environ, **worker_variables(), **seen},
            start_new_session=True,
        )
        self._guard = guard
        guard.watch(self._process.pid)
        os.close(request_out)
        os.close(reply_in)
        self.pid: int | None = self._process.pid
        self.ready = False
        self.attempt: Attempt | None = None
        self.start_deadline = time.monotonic() + start_timeout
        self._received = b""
        self._write(setup.model_dump_json())

    def send(self, job: Job) -> None:
        self._write(job.model_dump_json())

    def receive(self) -> tuple[list[Reply], bool]:
        """What has arrived, and whether the pipe is still open. Raises ValueError for anything but
        replies."""
        data = os.read(self.replies, 1 << 20)
        *lines, self._received = (self._received + data).split(b"\n")
        return [REPLY.validate_json(line) for line in lines], bool(data)

    def epitaph(self) -> str:
        """How a process whose pipe is closed ended."""
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "the worker closed its pipe"
        if code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}{self._log_tail()}"
        return f"the worker exited with status {code}{self._log_tail()}"

    def end(self) -> None:
        """Kills the process and all that it started, and closes the pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.forget(self._process.pid)
        os.close(self._requests)
        os.close(self.replies)
        self._log.close()

    def _write(self, document: str) -> None:
        line = document.encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._requests, line) :]
        except BrokenPipeError:  # it is dead: the other pipe says so
            return

    def _log_tail(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f": {text[-LOG_CHARS:]}" if text else ""


def worker_variables() -> dict[str, str]:
    """Environment of a worker: it imports what the driver imports, and computes with one thread, because
    the workers share the cores."""
    return {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),
    }
