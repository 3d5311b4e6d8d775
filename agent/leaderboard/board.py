"""The rows of the leaderboard: references and fronts of runs, the one to use first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from agent.ledger import Ledger, Role, RunRecord
from agent.views.report import Report, Row, build_report


class Place(BaseModel):
    """One line of the leaderboard. Ranks are among rows of the same prompts (`workload`)."""

    model_config = ConfigDict(frozen=True)

    rank: int
    workload: str
    model: str
    length: str
    run: str
    row: Row

    def flat(self) -> dict[str, str | int | float | bool | None]:
        """The place as one CSV line."""
        row, heldout = self.row, self.row.heldout
        accuracy, ratio = (heldout.accuracy, heldout.bytes_ratio) if heldout else (None, None)
        return {
            "rank": self.rank,
            "run": self.run,
            "model": self.model,
            "length": self.length,
            "candidate": row.candidate,
            "hash": row.hash,
            "name": row.name,
            "role": row.role.value,
            "proposer": row.proposer,
            "new_graph": row.new_graph,
            "meets_floor": row.meets_floor,
            "search_accuracy": row.search.accuracy.mean,
            "search_accuracy_low": row.search.accuracy.low,
            "search_accuracy_high": row.search.accuracy.high,
            "search_bytes_ratio": row.search.bytes_ratio.mean,
            "search_prompts": row.search.prompts,
            "heldout_accuracy": accuracy.mean if accuracy else None,
            "heldout_accuracy_low": accuracy.low if accuracy else None,
            "heldout_accuracy_high": accuracy.high if accuracy else None,
            "heldout_bytes_ratio": ratio.mean if ratio else None,
            "heldout_bytes_ratio_low": ratio.low if ratio else None,
            "heldout_bytes_ratio_high": ratio.high if ratio else None,
            "heldout_prompts": heldout.prompts if heldout else None,
            "wins_over": "; ".join(row.wins),
            "verdict": row.verdict,
            "hypothesis": row.hypothesis,
        }


def places(ledger: Ledger, runs: Iterable[RunRecord]) -> list[Place]:
    """References and fronts of the runs, the same candidate once; those that hold the accuracy floor on
    held-out prompts first, then by the bytes they move."""
    found: dict[tuple[str, str], tuple[RunRecord, Report, Row]] = {}
    for run in sorted(runs, key=lambda one: one.id, reverse=True):
        report = build_report(ledger, run, json.loads(run.settings))
        for row in report.rows:
            found.setdefault((run.workload, row.hash), (run, report, row))
    ordered = sorted(found.values(), key=lambda one: (one[0].workload, *_order(one[2])))
    return _ranked(ordered)


def _order(row: Row) -> tuple[bool, bool, float, float, bool]:
    score = row.heldout or row.search
    # Of equals the reference comes first: what costs what dense costs is no better than dense.
    return (
        not row.meets_floor,
        row.heldout is None,
        round(score.bytes_ratio.mean, 4),
        -score.accuracy.mean,
        row.role is Role.PROPOSED,
    )


def _ranked(ordered: Sequence[tuple[RunRecord, Report, Row]]) -> list[Place]:
    ranks: dict[str, int] = {}
    found = []
    for run, report, row in ordered:
        ranks[run.workload] = ranks.get(run.workload, 0) + 1
        model, length = report.labels.get("model", ""), report.labels.get("length", "")
        found.append(
            Place(
                rank=ranks[run.workload],
                workload=run.workload,
                model=model,
                length=length,
                run=run.name,
                row=row,
            )
        )
    return found
