"""The last stage: the front and the references, measured again on prompts that the search never used."""

from __future__ import annotations

from agent.ledger import CandidateRecord, Ledger, Role, Status
from agent.search.bench import Bench
from agent.search.flight import job, record, restored, reuse
from agent.search.progress import Progress, View
from evaluators.executor import Executor
from evaluators.measure.pareto import Point, front

_WAIT = 0.25


def finalists(rows: list[CandidateRecord]) -> list[CandidateRecord]:
    """The references, then the candidates on the front of the search prompts, by bytes ascending.

    References come first, so that of equal points the reference stands: what equals it is no news.
    """
    measured = [row for row in rows if row.status is Status.MEASURED and _point(row) is not None]
    references = sorted(
        (r for r in measured if r.role is not Role.PROPOSED), key=lambda r: (r.role, r.number)
    )
    proposed = [row for row in measured if row.role is Role.PROPOSED]
    by_hash = {row.hash: row for row in (*references, *proposed)}
    standing = front([point for row in by_hash.values() if (point := _point(row)) is not None])
    on_front = [by_hash[point.name] for point in standing]
    return references + [row for row in on_front if row.role is Role.PROPOSED]


def measure_heldout(
    ledger: Ledger,
    run_id: int,
    bench: Bench,
    executor: Executor,
    timeout: float,
    progress: Progress,
    view: View,
) -> None:
    """Measure the finalists on the held-out prompts; what was measured there already is left alone."""
    rows = ledger.candidates(run_id, (Status.MEASURED,))
    waiting = {}
    for row in finalists(rows):
        if row.evaluation("heldout") is not None or row.hash is None:
            continue
        if reuse(ledger, bench, row.id, row.hash, "heldout") is None:
            waiting[row.hash] = row
    if waiting:
        bench.open_heldout()
    for key, row in waiting.items():
        executor.submit(job(key, restored(row).candidate, "heldout", None, timeout))
    while waiting:
        progress.in_flight = len(waiting)
        view.update(progress)
        for outcome in executor.wait(_WAIT):
            row = waiting.pop(outcome.job.key)
            ledger.record(row.id, record(outcome, bench), environment=bench.environment)
            if outcome.reason:
                view.notice(f"{row.name} could not be measured on held-out prompts: {outcome.reason}")


def _point(row: CandidateRecord) -> Point | None:
    found = row.evaluation("search")
    if found is None or found.accuracy is None or found.bytes_per_step is None or row.hash is None:
        return None
    return Point(row.hash, found.accuracy, found.bytes_per_step)
