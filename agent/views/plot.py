"""The Pareto plot as a PNG. Matplotlib (560 ms to import) is loaded only here."""

from __future__ import annotations

from pathlib import Path

from agent.ledger import Role
from agent.views.report import Report, Row


def save_plot(report: Report, path: Path) -> Path:
    """Draw accuracy over bytes: everything measured, the references, the front and its held-out intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(8, 5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(
        [dot.bytes_ratio for dot in report.measured],
        [dot.accuracy for dot in report.measured],
        s=14,
        color="0.75",
        label=f"{len(report.measured)} measured candidates",
    )
    front = report.front
    axes.step(
        [row.search.bytes_ratio.mean for row in front],
        [row.search.accuracy.mean for row in front],
        where="post",
        color="tab:blue",
        linewidth=1,
    )
    _points(axes, front, "o", "tab:blue", "front, search prompts")
    _points(axes, [r for r in report.rows if r.role is Role.SEED], "s", "tab:orange", "seeds, search prompts")
    _points(axes, [r for r in report.rows if r.role is Role.DENSE], "D", "black", "dense, search prompts")
    again = [row for row in report.rows if row.heldout]
    if again:
        scores = [row.heldout for row in again if row.heldout]
        axes.errorbar(
            [score.bytes_ratio.mean for score in scores],
            [score.accuracy.mean for score in scores],
            yerr=[
                [score.accuracy.mean - score.accuracy.low for score in scores],
                [score.accuracy.high - score.accuracy.mean for score in scores],
            ],
            fmt="x",
            color="tab:green",
            elinewidth=0.8,
            markersize=5,
            label="held-out prompts, 95% interval",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bytes per decode step / dense")
    axes.set_ylabel("RULER accuracy")
    axes.set_title(
        f"run {report.run}: {report.labels.get('model', '')} {report.labels.get('length', '')}".strip()
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _points(axes: object, rows: list[Row] | tuple[Row, ...], marker: str, color: str, label: str) -> None:
    if not rows:
        return
    axes.scatter(  # type: ignore[attr-defined]
        [row.search.bytes_ratio.mean for row in rows],
        [row.search.accuracy.mean for row in rows],
        marker=marker,
        s=34,
        color=color,
        label=label,
        zorder=3,
    )
