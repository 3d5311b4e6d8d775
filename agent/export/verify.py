"""Checks an exported folder: the flow afresh through the sandbox, the hashes, the score measured again, and
what the launch script serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.export.measure import EngineName, measure, recorded_engine
from agent.export.report import CONFIG, FLOW, GRAPH, ExportError, ExportReport, Serving, read_report
from agent.export.serve import Served, serve
from agent.sandbox import Rejected, Sandbox
from evaluators.measure.measurement import Measurement
from search_spaces.candidate import Candidate
from vortex.config import VortexConfig
from vortex.errors import VortexError
from vortex.graph.model import FlowGraph


class Verdict(BaseModel):
    """What a check found. `problems` is empty when the folder is what its report says."""

    model_config = ConfigDict(frozen=True)

    name: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    recorded: tuple[float, float, float]
    """Accuracy of the report: mean, and both ends of its interval."""
    engine: str | None = None
    device: str | None = None
    accuracy: float | None = None
    bytes_ratio: float | None = None
    served: Served | None = None

    @property
    def holds(self) -> bool:
        return not self.problems


def verify(
    folder: Path,
    cache: Path,
    model: Path | None = None,
    *,
    engine: EngineName | None = None,
    serving: Serving | None = None,
    server: Sequence[str] | None = None,
) -> Verdict:
    """Check the folder. Prompts are made again into `cache` unless they are there.

    model: the measured model's folder on this machine, if not where the report says.
    engine: what measures; None is what the record was made with. serving: options of an SGLang engine that
    win over the record's.
    server: start the launch script too, with these further options of the server; None does not.
    Raises ExportError where the folder cannot be read or not be measured at all.
    """
    report = read_report(folder)
    problems: list[str] = []
    graph, config = _load(folder, report, problems)
    interval = report.result.accuracy
    recorded = (interval.mean, interval.low, interval.high)
    if problems:
        return Verdict(name=report.name, problems=tuple(problems), recorded=recorded)
    assert graph is not None
    assert config is not None
    spec = report.prompts.spec(model)
    again = measure(
        graph, config, report, spec, cache, engine or recorded_engine(report), serving or Serving()
    )
    problems += _contradictions(again, report)
    served = None if server is None else serve(folder, report, config, spec.model, server)
    problems += [] if served is None else served.problems(report)
    return Verdict(
        name=report.name,
        problems=tuple(problems),
        notes=(*_notes(again, report), *(served.notes if served else ())),
        recorded=recorded,
        engine=again.engine,
        device=again.device,
        accuracy=again.accuracy,
        bytes_ratio=again.bytes_ratio,
        served=served,
    )


def _contradictions(again: Measurement, report: ExportReport) -> list[str]:
    found = []
    interval = report.result.accuracy
    if not interval.low - 1e-9 <= again.accuracy <= interval.high + 1e-9:
        found.append(
            f"accuracy measured again is {100 * again.accuracy:.1f}%, outside the recorded interval "
            f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
        )
    ratio, was = again.bytes_ratio, report.result.bytes_ratio
    if abs(ratio - was) > 0.02 * was:
        found.append(f"it moves {100 * ratio:.2f}% of dense's bytes, not the recorded {100 * was:.2f}%")
    return found


def _notes(again: Measurement, report: ExportReport) -> list[str]:
    found = []
    was = report.result.measurement
    if (again.engine, again.device) != (was.engine, was.device):
        found.append(
            f"the record was measured by {was.engine} on {was.device}; its interval is compared anyway"
        )
    if _prompts_of(again.workload) != _prompts_of(report.prompts.key):
        found.append(
            "the prompts made here are not the recorded ones: other versions of the data, model or libraries"
        )
    return found


def _prompts_of(key: str) -> str:
    """A workload's identity without that of an engine, which follows the prompts' own after a dash."""
    return key.partition("-")[0]


def _load(
    folder: Path, report: ExportReport, problems: list[str]
) -> tuple[FlowGraph | None, VortexConfig | None]:
    """The flow and the config, with everything that contradicts the report added to `problems`."""
    try:
        source = (folder / FLOW).read_text(encoding="utf-8")
        kept = FlowGraph.from_json((folder / GRAPH).read_text(encoding="utf-8"))
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config = VortexConfig.model_validate(values)
    except (OSError, ValueError, ValidationError, VortexError) as error:
        raise ExportError(f"{folder} cannot be read: {error}") from None
    try:
        with Sandbox(geometry=kept.traced_at) as sandbox:
            graph = sandbox.trace(source)
    except Rejected as error:
        problems.append(f"{FLOW} is refused: {error}")
        return None, None
    if graph.hash != kept.hash:
        problems.append(f"{FLOW} traces to graph {graph.hash[:12]}, {GRAPH} holds {kept.hash[:12]}")
    if graph.hash != report.graph_hash:
        problems.append(
            f"{FLOW} traces to graph {graph.hash[:12]}, the report is of {report.graph_hash[:12]}"
        )
    candidate = Candidate(graph, report.knobs)
    if candidate.hash != report.hash:
        problems.append(f"the candidate's hash is {candidate.hash[:12]}, the report is of {report.hash[:12]}")
    if config not in (candidate.config(report.name, GRAPH), candidate.config(report.name, FLOW)):
        problems.append(f"{CONFIG} does not hold the knobs of the report")
    if f'"{report.name}"' not in source and f"'{report.name}'" not in source:
        problems.append(f"{FLOW} does not register {report.name!r}")
    return graph, config
