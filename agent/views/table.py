"""The final table of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent.ledger.records import Role
from agent.views.speed import speed_lines

if TYPE_CHECKING:
    from agent.views.report import Report, Row, Score


def result(report: Report) -> RenderableType:
    """The front beside the seeds and dense, what was measured on, and what may be concluded."""
    speeds = [Text(text) for row in report.front for text in speed_lines(row, report.labels.get("length"))]
    return Group(
        _front(report), *speeds, Text(_conclusion(report), style="bold"), Text(_ground(report), style="dim")
    )


def _front(report: Report) -> Table:
    grounds = " and ".join(dict.fromkeys(row.ground for row in report.rows))
    title = f"Pareto front of run {report.run} on {grounds}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left")
    table.add_column("candidate", overflow="fold", ratio=3)
    table.add_column("accuracy,\nsearch", justify="right", no_wrap=True)
    table.add_column("accuracy,\nheld-out", justify="right", no_wrap=True)
    table.add_column("bytes / dense,\nheld-out", justify="right", no_wrap=True)
    table.add_column("on held-out prompts", overflow="fold", ratio=3)
    for row in report.rows:
        style = "bold green" if row.wins else ("" if row.role is Role.PROPOSED else "dim")
        table.add_row(
            _name(row),
            _percent(row.search),
            _percent(row.heldout) if row.heldout else "-",
            _ratio(row.heldout or row.search),
            escape(row.verdict) + ("" if row.meets_floor else "\n[yellow]below the accuracy floor[/yellow]"),
            style=style,
        )
    return table


def _name(row: Row) -> str:
    if row.role is Role.DENSE:
        return "dense"
    mark = " *" if row.new_graph else ""
    return escape(f"{row.name}{mark}\n{row.hash[:12]} by {row.proposer}")


def _percent(score: Score) -> str:
    low, high = score.accuracy.low, score.accuracy.high
    return f"{100 * score.accuracy.mean:.1f}%\n{escape(f'[{100 * low:.0f}, {100 * high:.0f}]')}"


def _ratio(score: Score) -> str:
    ratio = score.bytes_ratio
    return f"{ratio.mean:.3f}\n{escape(f'[{ratio.low:.3f}, {ratio.high:.3f}]')}"


def _conclusion(report: Report) -> str:
    new = [row for row in report.winners if row.new_graph]
    if not report.winners:
        found = "No candidate is shown to beat a reference on held-out prompts."
    else:
        found = (
            f"{len(report.winners)} candidate(s) beat a reference on held-out prompts, "
            f"{len(new)} of them with a graph that no seed has (*)."
        )
    return f"{found} {report.message}" if report.message else found


def _ground(report: Report) -> str:
    level = (
        "95% intervals over prompts, bootstrapped within tasks; wins hold together at 95% (Holm, Bonferroni)."
    )
    lines = [level, *(f"{key}: {value}" for key, value in report.labels.items())]
    if report.tasks_counted:
        lines.append(f"tasks counted: {', '.join(report.tasks_counted)}")
    if report.tasks_excluded:
        excluded = [
            task.task
            if task.dense_accuracy is None
            else f"{task.task} (dense {100 * task.dense_accuracy:.0f}%)"
            for task in report.tasks_excluded
        ]
        lines.append(f"tasks left out: {', '.join(excluded)}")
    tally = report.tally
    lines.append(
        f"{tally.proposals} proposals: {tally.measured} measured, {tally.pruned} stopped at the gate, "
        f"{tally.duplicate} duplicates, {tally.rejected} rejected, {tally.failed} failed; "
        f"{report.seconds:.0f} s of work"
    )
    if report.spend.calls:
        spend = report.spend
        lines.append(
            f"LLM: {spend.calls} calls, {spend.prompt_tokens:,} + {spend.completion_tokens:,} tokens, "
            f"${spend.cost:.4f}" + (f" and {spend.unpriced} calls of unknown price" if spend.unpriced else "")
        )
    lines.append(f"ledger: {report.ledger}" + (f"; plot: {report.plot}" if report.plot else ""))
    return "\n".join(lines)
