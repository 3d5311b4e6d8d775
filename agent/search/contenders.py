"""Measured speed of the few candidates that one would use: taken alone, when the workers are gone."""

from __future__ import annotations

from agent.ledger import EvaluationRecord, Ledger
from agent.search.bench import Bench
from agent.search.flight import restored
from agent.search.progress import View
from agent.views.report import Report, Row

SPEED = "speed"


def contenders(report: Report, count: int) -> list[Row]:
    """Those with a win first, then those that hold the accuracy floor, each by the bytes they move."""
    useful = [row for row in report.front if row.meets_floor and row.heldout is not None]
    return sorted(useful, key=lambda row: (not row.wins, row.search.bytes_per_step))[:count]


def time_contenders(ledger: Ledger, bench: Bench, report: Report, count: int, view: View) -> None:
    """Time the contenders and commit it (a document that `read_speed` reads); what was timed before is left
    alone."""
    for row in contenders(report, count):
        if row.speed is not None or bench.time is None:
            continue
        candidate = restored(ledger.candidate(row.candidate)).candidate
        if candidate is None:
            continue
        view.notice(f"timing {row.name} against dense attention, alone")
        try:
            timing = bench.time(candidate)
        except Exception as error:  # a report that is missing costs nobody the search
            view.notice(f"{row.name} could not be timed: {type(error).__name__}: {error}")
            continue
        timed = EvaluationRecord(split=SPEED, workload=bench.workload, status="done", measurement=timing)
        ledger.record(row.candidate, timed, environment=bench.environment)
