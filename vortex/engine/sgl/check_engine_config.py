"""The preflight of a sparse engine: `check_engine_config(path)`, or on the command line
`python -m vortex.engine.sgl.check_engine_config FILE`.

FILE is a JSON object with `vortex_` keys (the fields of VortexConfig) and the engine's own ones. Nothing is
downloaded or run: a model's shape comes from its folder, and the flow is compiled on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig
from vortex.engine.sgl import rules
from vortex.engine.sgl.model_shape import ModelShape, read_shape
from vortex.engine.sgl.options import EXPLICIT, PREFIX, SWITCH, Problem, split
from vortex.engine.sgl.target import device_of, target_name
from vortex.errors import ConfigError, VortexError
from vortex.flow import FlowBase, build_vflow, load_graph, trace_flow
from vortex.flow.verify import BLOCK_SIZES, CompileReport, VerifyError, read_flow, verify_flow_compilable
from vortex.graph.model import FlowGraph


@dataclass(frozen=True)
class EngineReport:
    """`config` is None for a dense engine, and where errors leave none. `sweep`: how the flow compiled."""

    engine: Mapping[str, Any]
    config: VortexConfig | None = None
    model: ModelShape | None = None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    sweep: CompileReport | None = None


def check_engine_config(path: str | Path, *, targets: Sequence[str] | None = None) -> EngineReport:
    """Checks a JSON file: every field, the registered name, the sizes, and a compile sweep for `targets` (by
    default all; `vortex.flow.verify.GRAPH_ONLY`: none). Raises ConfigError that lists everything wrong."""
    report = inspect_engine_config(path, targets=targets)
    if report.errors:
        raise ConfigError(f"{path}: " + "; ".join(map(str, report.errors)))
    return report


def inspect_engine_config(path: str | Path, *, targets: Sequence[str] | None = None) -> EngineReport:
    """`check_engine_config` that returns its errors; ConfigError only for a file that is no JSON object."""
    return _with_named(read_settings(path), targets)


def inspect_options(options: Mapping[str, Any], *, targets: Sequence[str] | None = None) -> EngineReport:
    """The same for the keyword arguments of an engine."""
    return _with_named(settings(options), targets)


def _with_named(report: EngineReport, targets: Sequence[str] | None) -> EngineReport:
    """Adds what the flow that the config names has to say."""
    if report.config is None or report.config.module_name is None:
        return report
    try:
        flow = read_named(report.config.module_name, report.config.module_path)
    except VortexError as error:
        return replace(report, errors=(*report.errors, Problem(f"{PREFIX}module_name", str(error))))
    return with_flow(report, flow, targets=targets)


def read_named(name: str, file: str | None) -> FlowBase | FlowGraph:
    """The flow that a config names, built and not registered in this process. Raises VortexError."""
    if file is None:
        return build_vflow(name)
    return load_graph(file) if file.endswith(".json") else read_flow(file, name)[1]


def read_settings(source: str | Path, *, needs_name: bool = True) -> EngineReport:
    """What is known of a file, or of JSON text, without looking at its flow. The fields of one VortexConfig
    without prefix are taken too. ConfigError for what is no JSON object."""
    inline = isinstance(source, str) and source.lstrip().startswith("{")
    path = Path() if inline else Path(source)
    try:
        data = json.loads(str(source) if inline else path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{'the JSON' if inline else path} cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return settings(_options(data), path.parent, needs_name=needs_name)


def _options(data: dict[str, Any]) -> dict[str, Any]:
    """The options that a JSON object means: itself, or the fields of one VortexConfig without prefix."""
    marked = any(name in (SWITCH, *EXPLICIT) or name.startswith(PREFIX) for name in data)
    fields = VortexConfig.model_fields.keys() - {"attention_backend"}  # which is a key of SGLang too
    return {EXPLICIT[0]: data} if not marked and fields & data.keys() else data


def settings(options: Mapping[str, Any], folder: Path = Path(), *, needs_name: bool = True) -> EngineReport:
    """The rules that need no flow. `folder`: where relative paths start, after the working directory.
    `needs_name`: whether the options must say which flow to run."""
    found = split(options)
    errors = [*found.problems, *rules.engine_errors(found.engine)]
    report = EngineReport(found.engine, errors=tuple(errors))
    if found.config is None and SWITCH not in options:
        missing = Problem("", f"names no setting of Vortex: a sparse engine has {PREFIX} keys")
        return report if found.problems else replace(report, errors=(*errors, missing))
    if found.config is None:
        off = Problem(SWITCH, "is false: the engine is dense")
        return report if found.problems else replace(report, warnings=(off,))
    config, model = found.config.found_from(folder), None
    if needs_name and config.module_name is None:
        errors.append(Problem(f"{PREFIX}module_name", "is missing: name the registered flow to run"))
    try:
        model = _model(found.engine, folder)
    except ConfigError as error:
        errors.append(Problem("model_path", str(error)))
    errors += rules.config_errors(config, target_name(device_of(found.engine)))
    errors += rules.size_errors(config, found.engine, model)
    warnings = tuple(rules.remarks(config, found.engine, model))
    return replace(report, config=config, model=model, errors=tuple(errors), warnings=warnings)


def _model(engine: Mapping[str, Any], folder: Path) -> ModelShape | None:
    path = engine.get("model_path")
    if not isinstance(path, str):
        return None
    changes = rules.model_changes(engine)
    return read_shape(Path(path), changes) or read_shape(folder / path, changes)


def with_flow(
    report: EngineReport, flow: FlowBase | FlowGraph, *, targets: Sequence[str] | None = None
) -> EngineReport:
    """Adds the compile sweep, and the rules that depend on what the flow does."""
    config, model = report.config, report.model
    if config is None:
        return report
    errors, warnings = list(report.errors), list(report.warnings)
    fitting = model if model is not None and model.kind == flow.kind else None
    try:
        sweep = _sweep(config, report.engine, fitting, flow, targets)
    except VerifyError as error:
        errors.append(Problem(f"{PREFIX}module_name", str(error)))
        return replace(report, errors=tuple(errors), sweep=error.report)
    if sweep.failed:
        first = sweep.failed[0]
        text = f"does not compile for {len(sweep.failed)} of {len(sweep.attempts)} combinations, such as "
        problem = Problem(f"{PREFIX}module_name", f"{text}{first}: {first.error}")
        (warnings if fitting is None else errors).append(problem)
    at = sweep.compiled[0].geometry
    graph = flow if isinstance(flow, FlowGraph) else trace_flow(flow, geometry=at)
    (errors if report.engine else warnings).extend(rules.flow_errors(graph, report.engine, model))
    return replace(report, errors=tuple(errors), warnings=tuple(warnings), sweep=sweep)


def _sweep(
    config: VortexConfig,
    engine: Mapping[str, Any],
    model: ModelShape | None,
    flow: FlowBase | FlowGraph,
    targets: Sequence[str] | None,
) -> CompileReport:
    """At the shape of the model where it is known, otherwise over the usual shapes."""
    block = config.block_size or engine.get("page_size")
    blocks = [block] if rules.is_size(block) else BLOCK_SIZES
    if model is None:
        return verify_flow_compilable(flow, block_sizes=blocks, dtypes=[config.dtype], targets=targets)
    ranks = rules.attention_ranks(engine)
    at = model.geometry(blocks[0], ranks if model.heads % ranks == 0 else 1)
    return verify_flow_compilable(
        flow,
        block_sizes=blocks,
        head_dims=[at.head_dim],
        latents=[(at.kv_lora_rank, at.qk_rope_head_dim)],
        groups=[at.group],
        dtypes=[config.dtype],
        targets=targets,
    )


if __name__ == "__main__":
    from vortex.check.engine_command import app

    app(prog_name="python -m vortex.engine.sgl.check_engine_config")
