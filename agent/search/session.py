"""One process's work on one run, new or resumed, from the references to the held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence

from agent.ledger import Ledger, RunRecord, RunStatus
from agent.proposers.base import Proposer
from agent.search.bench import Bench
from agent.search.board import Board
from agent.search.check import Checker, Tracer
from agent.search.final import measure_heldout
from agent.search.flight import Flight
from agent.search.intake import Intake
from agent.search.loop import Loop
from agent.search.outlook import Outlook
from agent.search.progress import Progress, Silent, View
from agent.search.references import measure_references
from agent.search.resume import restore
from agent.search.settings import SearchSettings
from agent.study import KnobStudy
from evaluators.executor import Executor
from search_spaces.objectives import Objectives


def run_search(
    ledger: Ledger,
    run: RunRecord,
    settings: SearchSettings,
    bench: Bench,
    proposer: Proposer,
    tracer: Tracer,
    executor: Executor,
    view: View | None = None,
    notices: Sequence[str] = (),
) -> RunStatus:
    """Work on a run until its budget is spent and its front is measured on held-out prompts.

    The ledger is written before and after every step: a process that dies at any point is continued by
    calling this again with the same run.

    Raises:
        SearchError: dense attention cannot be measured.
        LedgerError: the ledger cannot be written any more.
        KeyboardInterrupt: passed on, after the run was marked as interrupted.
    """
    view = view or Silent()
    board = Board()
    progress = Progress(run.name, settings.budget, proposer.name, executor.workers, board, notices=[*notices])
    view.start(progress)
    try:
        intake = Intake(ledger, run.id)
        flight = Flight(ledger, executor, bench, board, settings.timeout)
        progress.stage = "measuring dense attention and the seeds"
        measure_references(ledger, run.id, bench, intake, flight, board, progress, view)
        assert board.dense is not None
        objectives = Objectives(floor=settings.accuracy_floor)
        study = KnobStudy(bench.space, objectives, board.dense.measurement.accuracy, settings.seed)
        outlook = Outlook(board, bench, settings.accuracy_floor)
        waiting = restore(ledger, run.id, board, outlook, study)
        progress.count(ledger.tally(run.id))
        progress.before = progress.measured
        progress.spend = ledger.spend(run.id)
        progress.stage = "searching"
        loop = Loop(
            ledger,
            run.id,
            settings,
            proposer,
            Checker(tracer, bench.geometry),
            intake,
            flight,
            board,
            outlook,
            study,
            progress,
            view,
        )
        loop.run(waiting)
        progress.stage = "measuring the front on held-out prompts"
        view.update(progress)
        measure_heldout(ledger, run.id, bench, executor, settings.timeout, progress, view)
        status = RunStatus.STOPPED if loop.stopped else RunStatus.FINISHED
        ledger.end_run(run.id, status, progress.seconds, loop.stopped)
        return status
    except (KeyboardInterrupt, Exception) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        _mark_interrupted(ledger, run, progress, reason)
        raise
    finally:
        view.stop()


def _mark_interrupted(ledger: Ledger, run: RunRecord, progress: Progress, reason: str) -> None:
    try:
        ledger.end_run(run.id, RunStatus.INTERRUPTED, progress.seconds, reason)
    except Exception as error:  # the ledger itself may be what failed; the first error is the one to tell
        progress.notices.append(f"the interruption could not be recorded: {error}")
