"""An engine in a process of its own: a job as JSON in, runs as JSON out.

SGLang ends all child processes of the process that it lives in, and a GPU is free for the next engine only
when the process is gone. `run_job` starts that process and ends it with everything that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from evaluators.serving.engine import ServingEngine, ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.latency import LoadPlan, measure_load
from evaluators.serving.report import DENSE, EngineFacts, Run, SparseWork
from evaluators.serving.throughput import DecodePlan, Watch, measure_decode
from vortex.config import VortexConfig

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph

TAIL = 3000
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


class Answer(BaseModel):
    """Runs in the order of the flows, or why there are none."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[Run, ...] = ()
    error: str | None = None


def run_job(job: EngineJob, timeout: float | None = None) -> tuple[Run, ...]:
    """Measure in a process of its own, which is gone when this returns. Raises ServingError."""
    if find_spec("sglang") is None:
        raise ServingError("SGLang is not installed here: pip install '.[sglang]'")
    with tempfile.TemporaryDirectory(prefix="vortex-serving-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "evaluators.serving.worker", str(answer)],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=os.getcwd(),
                env=os.environ | {"PYTHONPATH": _path()},
                start_new_session=True,
            )
            try:
                process.communicate(job.model_dump_json().encode(), timeout)
            except subprocess.TimeoutExpired:
                raise ServingError(f"the engine took more than {timeout:.0f} s\n{_tail(log)}") from None
            finally:
                _end(process)
        if not answer.exists():
            raise ServingError(f"the engine's process ended with {process.returncode}\n{_tail(log)}")
        found = Answer.model_validate_json(answer.read_bytes())
    if found.error is not None:
        raise ServingError(found.error)
    return found.runs


def measure(job: EngineJob) -> tuple[Run, ...]:
    """Measure in this process."""
    if not job.flows:
        with ServingEngine(job.model, None, job.options) as engine:
            if "vortex" in _state(engine.sgl.get_server_info()):
                raise ServingError("the engine that was to be dense has a sparse backend")
            return (_run(engine, job, None),)
    with tempfile.TemporaryDirectory(prefix="vortex-serving-") as folder:
        path = Path(folder, "graph.json")
        path.write_text(job.flows[0].graph, encoding="utf-8")
        first = job.flows[0].config.model_copy(
            update={"module_path": str(path), "module_name": job.flows[0].config.module_name or "candidate"}
        )
        with ServingEngine(job.model, first, job.options) as engine:
            return tuple(_run(engine, job, flow) for flow in job.flows)


def _run(engine: ServingEngine, job: EngineJob, flow: Flow | None) -> Run:
    facts = engine_facts(engine.device, engine.sgl.get_server_info())
    watch: Watch = _nothing
    if flow is not None:
        graph = flow.read()
        engine.deploy(graph, flow.config)
        deployed = engine.counters().graph
        if deployed != graph.hash:
            raise ServingError(f"{flow.name}: the engine runs graph {deployed}, asked for was {graph.hash}")
        watch = partial(_counted, engine)
    vocabulary = _vocabulary(job.model)
    return Run(
        flow=flow.name if flow else DENSE,
        graph=graph.hash if flow else None,
        config=flow.config.model_dump_json(exclude_defaults=True) if flow else None,
        engine=facts,
        decode=measure_decode(engine.sgl, vocabulary, job.decode, watch) if job.decode else (),
        load=measure_load(engine.sgl, vocabulary, job.load, watch) if job.load else (),
    )


def _nothing() -> SparseWork | None:
    return None


def _counted(engine: ServingEngine) -> SparseWork | None:
    counters = engine.counters().model_dump()
    return SparseWork(**{name: counters[name] for name in SparseWork.model_fields})


def engine_facts(device: str, info: Mapping[str, Any]) -> EngineFacts:
    """From what `get_server_info` says; the scheduler's own state where it resolves a default."""
    state = {**info, **_state(info)}
    graphs = state["cuda_graph_config"]["decode"]["backend"]
    return EngineFacts(
        engine="SGLang",
        version=info["version"],
        device=device,
        attention_backend=state["attention_backend"],
        dtype=state["dtype"],
        kv_cache_dtype=state["kv_cache_dtype"],
        page_size=state["page_size"],
        tp_size=state["tp_size"],
        cuda_graphs=state["device"] == "cuda" and graphs != "disabled",
        overlap_schedule=not state["disable_overlap_schedule"],
        prefix_cache=not state["disable_radix_cache"],
        kv_tokens=state.get("memory_usage", {}).get("token_capacity"),
    )


def _state(info: Mapping[str, Any]) -> Mapping[str, Any]:
    return info["internal_states"][0]  # type: ignore[no-any-return]


def _vocabulary(model: Path) -> int:
    data = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return int(data.get("text_config", data)["vocab_size"])


def _path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the session: SGLang's processes too, should the worker not have ended them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    return log.read_bytes()[-TAIL:].decode(errors="replace")


def main(answer: Path) -> None:
    job = EngineJob.model_validate_json(sys.stdin.buffer.read())
    try:
        found = Answer(runs=measure(job))
    except Exception as error:
        import traceback

        traceback.print_exc()
        found = Answer(error=f"{type(error).__name__}: {error}")
    partial_file = answer.with_suffix(".part")
    partial_file.write_text(found.model_dump_json(), encoding="utf-8")
    partial_file.rename(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
