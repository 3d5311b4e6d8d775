"""Writes a candidate as a folder that a deployment can load, all of it or nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from agent.export.choose import Chosen
from agent.export.launch import engine_options, launch_script
from agent.export.readme import readme
from agent.export.report import (
    CONFIG,
    FLOW,
    GRAPH,
    LAUNCH,
    PROBE,
    README,
    REPORT,
    ExportError,
    ExportReport,
    Origin,
    Prompts,
    Result,
    Serving,
)
from agent.ledger import Ledger, RunRecord
from agent.search.settings import SearchSettings
from evaluators.measure import Measurement
from evaluators.measure.stats import interval, paired_difference
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from vortex.graph.model import FlowGraph
from vortex.graph.render import render_flow


def export(ledger: Ledger, run: RunRecord, chosen: Chosen, to: Path, force: bool = False) -> ExportReport:
    """Write the folder `to` and return its report.

    The folder appears complete or not at all. Raises ExportError where `to` holds files and `force` is
    false, or where it is a file.
    """
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise ExportError(f"{to} is not a folder: give another --to")
    if to.is_dir() and any(to.iterdir()) and not force:
        raise ExportError(f"{to} is not empty: give another --to, or --force to replace it")
    if chosen.row.graph is None or chosen.row.knobs is None:
        raise ExportError(f"candidate {chosen.row.id} has no graph in the ledger")
    graph = FlowGraph.from_json(chosen.row.graph)
    candidate = Candidate(graph, Knobs.model_validate_json(chosen.row.knobs))
    name = flow_name(chosen.row.name, candidate.hash)
    report = _report(ledger, run, chosen, candidate, name)
    config = candidate.config(name, GRAPH).model_dump(mode="json")
    options = engine_options(graph, candidate.knobs.block_size)
    files = {
        FLOW: render_flow(graph, name),
        GRAPH: graph.to_json() + "\n",
        CONFIG: json.dumps(config, indent=2) + "\n",
        LAUNCH: launch_script(options),
        REPORT: report.model_dump_json(indent=1) + "\n",
        README: readme(report, config, options),
    }
    _replace(to, files)
    return report


def flow_name(name: str, candidate_hash: str) -> str:
    """A name to register under that no shipped flow has."""
    plain = re.sub(r"\W+", "_", name).strip("_")[:60] or "candidate"
    return f"{plain}_{candidate_hash[:8]}"


def _report(ledger: Ledger, run: RunRecord, chosen: Chosen, candidate: Candidate, name: str) -> ExportReport:
    settings = SearchSettings.model_validate_json(run.settings)
    search = _result(chosen.search, chosen.dense_search) if chosen.search else None
    return ExportReport(
        name=name,
        hash=candidate.hash,
        graph_hash=candidate.graph.hash,
        chosen=chosen.why,
        hypothesis=chosen.row.hypothesis,
        proposer=chosen.row.proposer,
        parents=chosen.row.parents,
        knobs=candidate.knobs,
        origin=Origin(ledger=ledger.url, run=run.name, candidate=chosen.row.id),
        prompts=_prompts(settings, chosen.result),
        serving=_serving(settings),
        result=_result(chosen.result, chosen.dense),
        search=search,
        dense_accuracy=chosen.dense.accuracy if chosen.dense else None,
        environment=ledger.environment(run.environment_id),
    )


def _result(measured: Measurement, dense: Measurement | None) -> Result:
    difference = paired_difference(measured, dense) if dense else None
    return Result(accuracy=interval(measured), difference_to_dense=difference, measurement=measured)


def _prompts(settings: SearchSettings, measured: Measurement) -> Prompts:
    from evaluators.ruler import TASKS

    held = measured.split == "heldout"
    order = settings.tasks or TASKS
    return Prompts(
        model=str(Path(settings.model).resolve()) if settings.model else PROBE,
        tasks=tuple(task for task in order if task in measured.tasks_counted),
        excluded=measured.tasks_excluded,
        length=settings.length,
        samples=settings.heldout_per_task if held else settings.prompts_per_task,
        gate=settings.gate_per_task,
        split="heldout" if held else "search",
        seed=settings.seed,
        essay=settings.essays,
        squad=settings.squad,
        hotpotqa=settings.hotpot,
        key=measured.workload,
    )


def _serving(settings: SearchSettings) -> Serving | None:
    if settings.engine != "sglang":
        return None
    return Serving(
        attention_backend=settings.attention_backend,
        dtype=settings.dtype,
        kv_cache_dtype=settings.kv_dtype,
        tp_size=settings.tp,
        mem_fraction_static=settings.mem_fraction,
    )


def _replace(to: Path, files: dict[str, str]) -> None:
    """Put the files where `to` is, by renames only; what was there before is removed last."""
    to.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        for name, text in files.items():
            with (fresh / name).open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        (fresh / LAUNCH).chmod(0o755)
        fresh.chmod(0o755)
        old = None
        if to.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{to.name}.old.", dir=to.parent))
            to.rename(old / to.name)
        fresh.rename(to)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
