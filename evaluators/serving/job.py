"""What is measured on one engine, as data, and the process that does it.

SGLang ends all child processes of the process that it lives in, and a GPU is free for the next engine only
when the process is gone. So every engine gets a process of its own: a job as JSON in, an answer out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from evaluators.executor.guard import Guard
from evaluators.serving.engine import ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.latency import LoadPlan
from evaluators.serving.report import DENSE, Failure, Run
from evaluators.serving.throughput import DecodePlan
from vortex.config import VortexConfig

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph

TAIL = 2000
ROOT = Path(__file__).resolve().parents[2]


class Flow(BaseModel):
    """What decodes: a graph as JSON and its settings. name: for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    graph: str
    config: VortexConfig

    def read(self) -> FlowGraph:
        from vortex.graph.model import FlowGraph

        return FlowGraph.from_json(self.graph)


class EngineJob(BaseModel):
    """One engine and what is measured on it. flows: in turn, in the same engine; none: a dense engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    options: ServingOptions
    flows: tuple[Flow, ...] = ()
    decode: DecodePlan | None = None
    load: LoadPlan | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What is to be measured."""
        return tuple(flow.name for flow in self.flows) or (f"{DENSE} ({self.options.attention_backend})",)


class Answer(BaseModel):
    """Each flow of a job, in order, is in one of the two."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[Run, ...] = ()
    failed: tuple[Failure, ...] = ()


def run_job(job: EngineJob, timeout: float | None = None) -> Answer:
    """Measure in a process of its own, which is gone when this returns. What was measured before an engine
    died or took more than `timeout` seconds is kept. Raises ServingError where there is no SGLang."""
    if find_spec("sglang") is None:
        raise ServingError("SGLang is not installed here: pip install '.[sglang]'")
    with tempfile.TemporaryDirectory(prefix="vortex-serving-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        end = _run(job, timeout, answer, log)
        found = Answer.model_validate_json(answer.read_bytes()) if answer.exists() else Answer()
        reason = f"{end}\n{log.read_bytes()[-TAIL:].decode(errors='replace')}"
    missing = job.names[len(found.runs) + len(found.failed) :]
    failed = tuple(Failure(flow=name, reason=reason) for name in missing)
    return Answer(runs=found.runs, failed=found.failed + failed)


def _run(job: EngineJob, timeout: float | None, answer: Path, log: Path) -> str:
    """How the process ended."""
    paths = (str(ROOT), os.environ.get("PYTHONPATH"))
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "evaluators.serving.worker", str(answer)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
        guard = Guard()  # ends the engine should this process be killed
        guard.watch(process.pid)
        try:
            process.communicate(job.model_dump_json().encode(), timeout)
        except subprocess.TimeoutExpired:
            return f"the engine took more than {timeout:g} s"
        finally:
            with suppress(ProcessLookupError):  # the session: SGLang's processes too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            guard.forget(process.pid)
            guard.close()
    return f"the engine's process ended with exit status {process.returncode}"
