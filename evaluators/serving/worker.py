"""The process of one engine: reads an `EngineJob` from standard input, writes the `Answer` so far after each
flow."""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluators.serving.engine import ServingEngine
from evaluators.serving.errors import ServingError
from evaluators.serving.job import Answer, EngineJob, Flow
from evaluators.serving.latency import measure_load
from evaluators.serving.report import DENSE, EngineFacts, Failure, Run, SparseWork
from evaluators.serving.throughput import Watch, measure_decode


def measure(job: EngineJob) -> Iterator[Run | Failure]:
    """Measure in this process: one result a flow, or one of a dense engine."""
    if not job.flows:
        with ServingEngine(job.model, None, job.options) as engine:
            if "vortex" in _state(engine.sgl.get_server_info()):
                raise ServingError("the engine that was to be dense has a sparse backend")
            yield _run(engine, job, DENSE)
        return
    with tempfile.TemporaryDirectory(prefix="vortex-serving-") as folder:
        path = Path(folder, "graph.json")
        path.write_text(job.flows[0].graph, encoding="utf-8")
        named = {"module_path": str(path), "module_name": "candidate"}
        with ServingEngine(job.model, job.flows[0].config.model_copy(update=named), job.options) as engine:
            for flow in job.flows:
                try:
                    yield _sparse_run(engine, job, flow)
                except Exception as error:
                    traceback.print_exc()
                    yield Failure(flow=flow.name, reason=f"{type(error).__name__}: {error}")


def _sparse_run(engine: ServingEngine, job: EngineJob, flow: Flow) -> Run:
    graph = flow.read()
    engine.deploy(graph, flow.config)
    deployed = engine.counters().graph
    if deployed != graph.hash:
        raise ServingError(f"the engine runs graph {deployed}, asked for was {graph.hash}")
    run = _run(engine, job, flow.name, partial(_counted, engine))
    config = flow.config.model_dump_json(exclude_defaults=True)
    return run.model_copy(update={"graph": graph.hash, "config": config})


def _run(engine: ServingEngine, job: EngineJob, name: str, watch: Watch = lambda: None) -> Run:
    vocabulary = _vocabulary(job.model)
    return Run(
        flow=name,
        engine=engine_facts(engine.device, engine.sgl.get_server_info()),
        decode=measure_decode(engine.sgl, vocabulary, job.decode, watch) if job.decode else (),
        load=measure_load(engine.sgl, vocabulary, job.load, watch) if job.load else (),
    )


def _counted(engine: ServingEngine) -> SparseWork:
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


def main(path: Path) -> None:
    job = EngineJob.model_validate_json(sys.stdin.buffer.read())
    results: list[Run | Failure] = []
    try:
        for result in measure(job):
            results.append(result)
            _write(results, path)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        results += [Failure(flow=name, reason=reason) for name in job.names[len(results) :]]
        _write(results, path)


def _write(results: Sequence[Run | Failure], path: Path) -> None:
    """As a whole or not at all: the engine's death may end this process at any moment."""
    runs = tuple(result for result in results if isinstance(result, Run))
    failed = tuple(result for result in results if isinstance(result, Failure))
    answer = Answer(runs=runs, failed=failed)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(answer.model_dump_json(), encoding="utf-8")
    unfinished.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
