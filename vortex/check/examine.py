"""From a flow file to its report: the allow-list, then a trace, then what the graph says.

The file is executed, with the rights of whoever asks, once the allow-list has passed it. Hostile sources
belong into a sandbox.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

from vortex.check import describe
from vortex.check.allowlist import check_source
from vortex.check.describe import Setting
from vortex.check.rejected import Rejected
from vortex.check.report import Finding, FlowReport
from vortex.errors import (
    FlowAdvice,
    FlowTypeError,
    GraphError,
    GuardError,
    PolicyError,
    RegistryError,
    VortexError,
    unknown,
)
from vortex.flow import FlowBase, load_source, trace_flow
from vortex.flow.loader import construct, no_flow
from vortex.flow.verify import is_taken
from vortex.flow.where import raising_line
from vortex.graph.advice import advice
from vortex.graph.model import FlowGraph


@dataclass(frozen=True)
class Examined:
    """What a file holds. `source`: why the allow-list refuses it; `error`: why it cannot be loaded; `built`:
    the flows that trace, by name."""

    source: Finding | None = None
    error: Finding | None = None
    flows: tuple[FlowReport, ...] = ()
    built: dict[str, FlowBase | FlowGraph] = field(default_factory=dict)


def examine_file(path: Path, setting: Setting, *, name: str | None = None, trust: bool = False) -> Examined:
    """All flows of a file, or the one called `name`. `trust`: execute what the allow-list refuses, too.
    Raises RegistryError where the file has no flow of that name."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        return Examined(error=Finding("load", f"cannot be read: {error}"))
    source = _refusal(text)
    if source is not None and not trust:
        return Examined(source)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            classes = load_source(text, str(path), trusted=trust)
    except VortexError as fault:
        return Examined(source, finding(fault, path))
    if not classes:
        return Examined(source, finding(no_flow("the file"), path))
    if name is not None and name not in classes:
        raise RegistryError(f"{path}: {unknown('flow', name, classes)}")
    chosen = classes if name is None else {name: classes[name]}
    found = [examine_flow(key, cls, setting, path) for key, cls in chosen.items()]
    built: dict[str, FlowBase | FlowGraph] = {r.name: flow for r, flow in found if flow is not None}
    return Examined(source, None, tuple(report for report, _ in found), built)


def examine_flow(
    name: str, cls: type[FlowBase], setting: Setting, path: Path
) -> tuple[FlowReport, FlowBase | None]:
    """One flow class, and the flow object if it traces."""
    report = FlowReport(name)
    if is_taken(name, path):
        taken = "the package ships a flow of this name; choose another name"
        return replace(report, error=Finding("load", taken)), None
    try:
        with warnings.catch_warnings(record=True) as heard, contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("always", FlowAdvice)
            flow = construct(cls)
            graph = trace_flow(flow, geometry=setting.of(cls.kind))
    except VortexError as fault:
        return replace(report, kind=cls.kind, error=finding(fault, path)), None
    said = [str(warning.message) for warning in heard if issubclass(warning.category, FlowAdvice)]
    return _described(replace(report, advice=tuple(said)), graph, setting, path), flow


def examine_graph(path: Path, name: str, setting: Setting) -> Examined:
    """A `graph.json`, which is read as data; `name` is what a configuration calls it."""
    try:
        graph = FlowGraph.from_json(path.read_bytes())
    except OSError as error:
        return Examined(error=Finding("load", f"cannot be read: {error}"))
    except VortexError as fault:
        return Examined(error=finding(fault, path))
    return Examined(flows=(_described(FlowReport(name), graph, setting, path),), built={name: graph})


def _described(report: FlowReport, graph: FlowGraph, setting: Setting, path: Path) -> FlowReport:
    report = replace(
        report,
        kind=graph.kind,
        hash=graph.hash,
        fields=describe.stored(graph, setting.config),
        ops=describe.ops(graph),
        guards=graph.guards,
        advice=(*report.advice, *advice(graph)),
    )
    with contextlib.suppress(PolicyError):  # what only a CUDA compiler understands has no price here
        try:
            report = replace(report, cost=describe.cost(graph, setting))
        except (GuardError, GraphError) as fault:
            report = replace(report, error=finding(fault, path))
    return report


def _refusal(text: str) -> Finding | None:
    try:
        check_source(text)
    except Rejected as verdict:
        return Finding(verdict.kind, verdict.reason, verdict.line)
    return None


def finding(error: VortexError, path: Path) -> Finding:
    """An error in the terms of a report."""
    if isinstance(error, FlowTypeError):
        return Finding("type", error.message, error.line, error.op, error.shapes, error.hint)
    cause = error.__cause__
    line = error.line or (raising_line(cause.__traceback__, str(path)) if cause is not None else None)
    return Finding("size" if isinstance(error, GraphError | GuardError) else "load", str(error), line)
