"""What a candidate's timing says, a line for each length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.views.report import Row
    from evaluators.measure.speed import SpeedReport, Spread
    from evaluators.serving.report import ServingReport

ELSEWHERE = "; accuracy was not measured at this length"


@dataclass(frozen=True)
class Timed:
    """A decode step of the whole engine, or the attention of one, in milliseconds. ratio: dense over sparse
    time."""

    what: str
    tokens: int
    sparse_ms: Spread
    dense_ms: Spread
    ratio: Spread

    @property
    def note(self) -> str:
        return f"{self.what} at {self.tokens:,} tokens: {self.ratio} times as fast as dense"


def timings(report: SpeedReport | ServingReport | None) -> tuple[Timed, ...]:
    """What was timed, the shortest length first."""
    if report is None:
        return ()
    if report.kind == "attention":
        found = [Timed("attention", c.length, c.sparse_ms, c.dense_ms, c.ratio) for c in report.columns]
    else:
        found = [Timed("step", c.tokens_in, c.sparse_ms, c.dense_ms, c.ratio) for c in report.comparisons]
    return tuple(sorted(found, key=lambda timed: timed.tokens))


def speed_lines(row: Row, length: str | None) -> Iterator[str]:
    """`length`: tokens at which accuracy was measured."""
    if row.speed is None:
        return
    told = _attention(row.speed) if row.speed.kind == "attention" else _serving(row.speed, length)
    yield from (f"{row.name}: {line}" for line in told)


def _attention(report: SpeedReport) -> Iterator[str]:
    busy = "" if report.alone else "; the machine was busy"
    for column in report.columns:
        yield (
            f"attention of a step at {column.length} tokens is {column.ratio} times as fast as dense "
            f"({column.dense_kernel}), {column.sparse_ms} against {column.dense_ms} ms"
            f"{'' if column.accuracy_measured else ELSEWHERE}{busy}"
        )


def _serving(report: ServingReport, length: str | None) -> Iterator[str]:
    dummy = "; dummy weights" if report.model.weights == "dummy" else ""
    for found in report.comparisons:
        yield (
            f"a decode step of {found.batch} x {found.tokens_in} tokens takes {found.sparse_ms} ms "
            f"({found.sparse}), dense {found.dense_ms} ms ({found.dense}): {found.ratio} times as fast, "
            f"blocks read: {found.work}; {found.engine}{dummy}"
            f"{'' if length is None or length == str(found.tokens_in) else ELSEWHERE}"
        )
