"""The rows of the leaderboard: references and fronts of runs, the one to use first."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from agent.ledger import Ledger, Role, RunRecord
from agent.views.report import Report, Row, build_report
from agent.views.speed import timings

Ground = tuple[str, str, str, str]


class Place(BaseModel):
    """One line of the leaderboard. Ranks are among rows that can be compared: of the same prompts
    (`workload`), model, engine and device."""

    model_config = ConfigDict(frozen=True)

    rank: int
    workload: str
    model: str
    length: str
    run: str
    row: Row

    @property
    def ground(self) -> Ground:
        """What rows must share to be ranked together."""
        return self.workload, self.model, self.row.engine, self.row.device

    def flat(self) -> dict[str, str | int | float | bool | None]:
        """The place as one CSV line."""
        row, heldout = self.row, self.row.heldout
        accuracy, ratio = (heldout.accuracy, heldout.bytes_ratio) if heldout else (None, None)
        timed = next(reversed(timings(row.speed)), None)
        return {
            "rank": self.rank,
            "run": self.run,
            "model": self.model,
            "length": self.length,
            "engine": row.engine,
            "device": row.device,
            "workload": self.workload,
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
            "timed": timed.what if timed else None,
            "timed_tokens": timed.tokens if timed else None,
            "timed_ms": timed.sparse_ms.median if timed else None,
            "timed_dense_ms": timed.dense_ms.median if timed else None,
            "speedup": timed.ratio.median if timed else None,
            "speedup_low": timed.ratio.low if timed else None,
            "speedup_high": timed.ratio.high if timed else None,
            "wins_over": "; ".join(row.wins),
            "verdict": row.verdict,
            "hypothesis": row.hypothesis,
        }


def places(ledger: Ledger, runs: Iterable[RunRecord]) -> list[Place]:
    """References and fronts of the runs, the same candidate once for each ground, grounds of the newest runs
    first. Of one ground those that hold the accuracy floor on held-out prompts come first, then by the bytes
    they move."""
    grounds: dict[Ground, dict[str, Place]] = {}
    for run in sorted(runs, key=lambda one: one.id, reverse=True):
        report = build_report(ledger, run, json.loads(run.settings))
        for row in report.rows:
            place = _place(run, report, row)
            grounds.setdefault(place.ground, {}).setdefault(row.hash, place)
    return [
        place.model_copy(update={"rank": rank})
        for found in grounds.values()
        for rank, place in enumerate(sorted(found.values(), key=lambda place: _order(place.row)), start=1)
    ]


def _place(run: RunRecord, report: Report, row: Row) -> Place:
    labels = report.labels
    model, length = labels.get("model", ""), labels.get("length", "")
    return Place(rank=0, workload=run.workload, model=model, length=length, run=run.name, row=row)


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
