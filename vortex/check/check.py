"""`check`: a flow file, an engine's configuration, or both against each other."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from vortex.check.describe import Setting
from vortex.check.examine import Examined, examine_file, examine_flow, examine_graph
from vortex.check.report import ConfigReport, Note, Report
from vortex.config import VortexConfig
from vortex.engine.sgl.check_engine_config import EngineReport, read_settings, with_flow
from vortex.engine.sgl.options import PREFIX, Problem
from vortex.engine.sgl.rules import is_size
from vortex.errors import FlowLoadError, RegistryError
from vortex.flow import FlowBase, get, has, list_keys
from vortex.flow.verify import GRAPH_ONLY
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph

CONTEXT = 32768


@dataclass(frozen=True)
class Sizes:
    """The row that costs are of, as far as the user says; the rest is the configuration's, the model's, or
    16-token blocks of 4 query heads of 128 features (MLA: 16 heads on a latent of 512 + 64)."""

    block_size: int | None = None
    head_dim: int | None = None
    group: int | None = None
    context: int | None = None


def check(
    file: str | Path,
    *,
    config: str | None = None,
    name: str | None = None,
    trust: bool = False,
    sizes: Sizes | None = None,
) -> Report:
    """`file`: flow file, name of a shipped flow, or JSON configuration of an engine, whose flow is then
    checked. `config`: JSON or its path, for the flows of a flow file. Raises FlowLoadError where there is no
    such file or flow, ConfigError for JSON that cannot be read, RegistryError where the file has no flow
    called `name`."""
    path, sizes = Path(file), sizes or Sizes()
    shipped = not path.is_file()
    if shipped and not has(str(file)):
        raise FlowLoadError(
            f"there is no file {path}, and no shipped flow of that name: {', '.join(list_keys())}"
        )
    if path.suffix == ".json":
        return _check_config(path, trust, sizes)
    engine = read_settings(config, needs_name=False) if config is not None else None
    setting = _setting(engine, sizes)
    examined = (
        _shipped(str(file), setting) if shipped else examine_file(path, setting, name=name, trust=trust)
    )
    report = Report(None if shipped else str(file), examined.source, trust, examined.flows, examined.error)
    if config is None or engine is None:
        return report
    named = engine.config.module_name if engine.config is not None else None
    if named is not None and named not in [flow.name for flow in examined.flows]:
        engine = _wrong(engine, f"{file} has no flow {named!r} to check")
    flows = [flow for key, flow in examined.built.items() if named in (None, key)]
    where = None if config.lstrip().startswith("{") else config
    return replace(report, config=noted(_tried(engine, flows), where))


def _check_config(file: Path, trust: bool, sizes: Sizes) -> Report:
    """A configuration, and the flow that it names."""
    engine = read_settings(file)
    config = engine.config
    if config is None or config.module_name is None:
        return Report(None, config=noted([engine], str(file)))
    setting = _setting(engine, sizes)
    try:
        if config.module_path is None:
            examined = _shipped(config.module_name, setting)
        elif config.module_path.endswith(".json"):
            examined = examine_graph(Path(config.module_path), config.module_name, setting)
        else:
            examined = examine_file(Path(config.module_path), setting, name=config.module_name, trust=trust)
    except RegistryError as error:
        return Report(config.module_path, config=noted([_wrong(engine, str(error))], str(file)))
    notes = noted(_tried(engine, examined.built.values()), str(file))
    return Report(config.module_path, examined.source, trust, examined.flows, examined.error, notes)


def _shipped(name: str, setting: Setting) -> Examined:
    cls = get(name)
    report, flow = examine_flow(name, cls, setting, Path(inspect.getfile(cls)))
    return Examined(flows=(report,), built={name: flow} if flow is not None else {})


def _setting(engine: EngineReport | None, sizes: Sizes) -> Setting:
    """Sizes that the user gave, else the configuration's, else the model's, else the usual ones."""
    config, model = VortexConfig(), None
    options: Mapping[str, Any] = {}
    if engine is not None:
        config, model, options = engine.config or config, engine.model, engine.engine
    page, ranks = options.get("page_size"), options.get("tp_size", 1)
    block = sizes.block_size or config.block_size or (page if is_size(page) else 16)
    gqa, mla = Geometry(block), Geometry.mla(block, 512, 64, 16)
    if model is not None and is_size(ranks) and model.heads % ranks == 0:
        at = model.geometry(block, ranks)
        gqa, mla = (gqa, at) if model.kind == "mla" else (at, mla)
    gqa = replace(gqa, head_dim=sizes.head_dim or gqa.head_dim, group=sizes.group or gqa.group)
    mla = replace(mla, group=sizes.group or mla.group)
    context = sizes.context or (min(CONTEXT, model.context) if model is not None else CONTEXT)
    kv = 1 if str(options.get("kv_cache_dtype", "auto")).startswith("fp8") else 2
    return Setting(gqa, mla, context, config, kv)


def _wrong(engine: EngineReport, message: str) -> EngineReport:
    return replace(engine, errors=(*engine.errors, Problem(f"{PREFIX}module_name", message)))


def _tried(engine: EngineReport, flows: Iterable[FlowBase | FlowGraph]) -> list[EngineReport]:
    """The settings with each flow; alone where there is none."""
    return [with_flow(engine, flow, targets=GRAPH_ONLY) for flow in flows] or [engine]


def noted(found: Sequence[EngineReport], path: str | None) -> ConfigReport:
    """What the settings' rules found, for one flow or several; each remark once."""
    errors, warnings = (
        tuple(Note(problem.key, problem.message) for problem in dict.fromkeys(chain.from_iterable(lists)))
        for lists in ([report.errors for report in found], [report.warnings for report in found])
    )
    sweeps = [report.sweep for report in found if report.sweep is not None]
    if not sweeps:
        return ConfigReport(path, errors, warnings)
    compiled, tried = sum(len(s.compiled) for s in sweeps), sum(len(s.attempts) for s in sweeps)
    return ConfigReport(path, errors, warnings, compiled, tried)
