"""One invocation of the search from end to end: open or resume the run, work, show the result."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from agent.ledger import Ledger, LedgerError, RunRecord, RunStatus, Spend
from agent.sandbox import Sandbox
from agent.search import interrupts
from agent.search.bench import Bench
from agent.search.build import build_bench, build_proposer
from agent.search.contenders import time_contenders
from agent.search.errors import SearchError
from agent.search.placement import build_executor
from agent.search.session import run_search
from agent.search.settings import SearchSettings
from agent.views.live import view_for
from agent.views.report import Report, build_report
from agent.views.table import result

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@dataclass(frozen=True)
class Order:
    """What the user asked for. `settings` None: continue run `resume`, with `changes` to its settings."""

    database: str
    runs_dir: Path
    resume: str | None = None
    settings: SearchSettings | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False


def execute(order: Order, console: Console) -> int:
    """Search, then show the result. Returns the exit status.

    Raises:
        SearchError, LedgerError: the message says what to do.
    """
    if order.resume:
        with Ledger(order.database, create=False):
            pass  # a ledger that is not there has nothing to resume, and must not be made
    with Ledger(order.database) as ledger:
        run = ledger.find_run(order.resume) if order.resume else None
        settings = order.settings or _settings(run, order.changes)
        finished = run is not None and run.status is RunStatus.FINISHED
        if run is not None and finished and ledger.tally(run.id).measured >= settings.budget:
            console.print(f"run {run.name} is finished; a larger --budget would continue it", markup=False)
        else:
            before = len(ledger.runs())
            try:
                run = _work(ledger, run, settings, order, console)
            except KeyboardInterrupt:
                _say_how_to_resume(ledger, order, before, console)
                return INTERRUPTED
            except Exception:
                _say_how_to_resume(ledger, order, before, console)
                raise
        report = show(ledger, run, settings, order, console)
        return 0 if report.status is RunStatus.FINISHED else 1


def show(ledger: Ledger, run: RunRecord, settings: SearchSettings, order: Order, console: Console) -> Report:
    """The table, the plot and, when asked for, the JSON document."""
    from agent.views.plot import save_plot

    report = build_report(ledger, ledger.run(run.id), settings.model_dump(mode="json"))
    path = save_plot(report, order.runs_dir / run.name / "pareto.png")
    report = report.model_copy(update={"plot": str(path)})
    console.print(result(report))
    if order.as_json:
        sys.stdout.write(report.model_dump_json() + "\n")
    return report


def _work(
    ledger: Ledger, run: RunRecord | None, settings: SearchSettings, order: Order, console: Console
) -> RunRecord:
    if run is not None:
        ledger.take_over(run)
        ledger.set_settings(run.id, settings.model_dump_json())
    proposer, notices = build_proposer(settings, ledger.spend(run.id) if run else Spend())
    console.print("preparing prompts: the first time they are prefilled, later they are read", markup=False)
    bench, evaluator = build_bench(settings, order.runs_dir / "cache")
    view = view_for(console)
    with Sandbox(geometry=bench.geometry) as sandbox:
        labels = {**bench.labels, "proposer": proposer.name, "executor": settings.executor}
        labels["sandbox"] = sandbox.isolation
        run = _same_ground(run, bench) if run else _new_run(ledger, settings, bench, labels)
        if sandbox.isolation != "bubblewrap":
            notices.append(f"candidates are traced under {sandbox.isolation}: bubblewrap is not available")
        journal = order.runs_dir / run.name / "journal.jsonl"
        with build_executor(settings, evaluator, journal) as executor:
            interrupts.install()
            run_search(ledger, run, settings, bench, proposer, sandbox, executor, view, notices)
    if settings.contenders:
        report = build_report(ledger, ledger.run(run.id), settings.model_dump(mode="json"))
        time_contenders(ledger, bench, report, settings.contenders, view)
    return run


def _settings(run: RunRecord | None, changes: dict[str, Any]) -> SearchSettings:
    if run is None:
        raise SearchError("neither settings nor a run to resume")
    return SearchSettings.model_validate(
        SearchSettings.model_validate_json(run.settings).model_dump() | changes
    )


def _new_run(ledger: Ledger, settings: SearchSettings, bench: Bench, labels: dict[str, str]) -> RunRecord:
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    return ledger.create_run(name, settings.model_dump_json(), bench.workload, bench.environment, labels)


def _same_ground(run: RunRecord, bench: Bench) -> RunRecord:
    if run.workload != bench.workload:
        raise SearchError(
            f"run {run.name} was measured on other prompts ({run.workload[:12]}) than are made now "
            f"({bench.workload[:12]}), or by another engine: the model, the data, their code or the machine "
            "has changed; start a new run"
        )
    return run


def _say_how_to_resume(ledger: Ledger, order: Order, before: int, console: Console) -> None:
    try:
        if order.resume is None and len(ledger.runs()) == before:
            return  # it had not begun
        run = ledger.find_run(order.resume or "last")
        measured = ledger.tally(run.id).measured
    except LedgerError:
        return
    where = "" if order.database == "runs/ledger.db" else f" --db {order.database}"
    folder = "" if order.runs_dir == Path("runs") else f" --runs-dir {order.runs_dir}"
    console.print(
        f"stopped with {measured} measured candidates in the ledger; "
        f"continue with: python -m agent.search --resume {run.name}{where}{folder}",
        markup=False,
        soft_wrap=True,
    )
