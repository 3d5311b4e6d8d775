"""The live view on a terminal, and its plain form where there is none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from agent.search.progress import Progress

_FRAME_S = 0.25
_LINE_S = 2.0
_SHOWN = 8


def view_for(console: Console) -> LiveView | LineView:
    """The live view on a terminal, lines elsewhere."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LiveView:
    """Redraws in place, at most four times a second; draws in the search's own thread."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._progress: Progress | None = None

    def start(self, progress: Progress) -> None:
        self._progress = progress
        self._live.start()
        self._draw(progress)

    def update(self, progress: Progress) -> None:
        if time.monotonic() - self._drawn >= _FRAME_S:
            self._draw(progress)

    def notice(self, text: str) -> None:
        if self._progress is None:
            self._console.print(text, markup=False)
            return
        self._progress.notices.append(text)
        self._draw(self._progress)

    def stop(self) -> None:
        self._live.stop()
        for text in self._progress.notices if self._progress else ():
            self._console.print(text, style="yellow", markup=False)

    def _draw(self, progress: Progress) -> None:
        self._live.update(screen(progress), refresh=True)
        self._drawn = time.monotonic()


class LineView:
    """One line when something changed, at most every two seconds: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = 0.0
        self._last = ""

    def start(self, progress: Progress) -> None:
        self._console.print(f"run {progress.run}", markup=False, highlight=False, soft_wrap=True)
        for text in progress.notices:
            self.notice(text)

    def update(self, progress: Progress) -> None:
        text = line(progress)
        now = time.monotonic()
        if text.partition(" | ")[0] != self._last and now - self._printed >= _LINE_S:
            self._printed, self._last = now, text.partition(" | ")[0]
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None: ...


def line(progress: Progress) -> str:
    """The state in one line: what changed first, then what changes all the time."""
    counts = ", ".join(f"{count} {status.value}" for status, count in progress.tally.items() if count)
    parts = [
        f"{progress.stage}: {progress.measured}/{progress.budget} measured ({counts or 'no proposal yet'})"
    ]
    parts.append(f"{_clock(progress.seconds)} elapsed, ETA {_clock(progress.eta)}")
    best = progress.board.front
    if best:
        parts.append(
            "front " + " ".join(_point(e.measurement.bytes_ratio, e.measurement.accuracy) for e in best[-5:])
        )
    return " | ".join(parts)


def screen(progress: Progress) -> RenderableType:
    """The whole live view."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(f"{progress.measured}/{progress.budget}", style="bold"),
        ProgressBar(total=progress.budget, completed=progress.measured, width=40),
        Text(f"{_clock(progress.seconds)} elapsed, ETA {_clock(progress.eta)}"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row("stage", progress.stage)
    facts.add_row(
        "in flight", f"{progress.in_flight} on {progress.workers} workers, {progress.gating} at the gate"
    )
    facts.add_row(
        "proposals", ", ".join(f"{n} {status.value}" for status, n in progress.tally.items() if n) or "-"
    )
    if progress.spend.calls:
        spend = progress.spend
        tokens = spend.prompt_tokens + spend.completion_tokens
        facts.add_row("LLM", f"{spend.calls} calls, {tokens:,} tokens, ${spend.cost:.4f}")
    if progress.last_reason:
        facts.add_row("last refusal", escape(progress.last_reason.splitlines()[0][:100]))
    notices = [Text(text, style="yellow") for text in progress.notices[-4:]]
    title = f"run {progress.run}, proposer {progress.proposer}"
    return Panel(Group(bar, facts, _best(progress), *notices), title=escape(title), title_align="left")


def _best(progress: Progress) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False)
    for column in ("front (search prompts)", "by", "accuracy", "bytes / dense"):
        table.add_column(column, justify="left" if column in ("by", "front (search prompts)") else "right")
    front = progress.board.front
    for entrant in front if len(front) <= _SHOWN else front[-_SHOWN:]:
        measured = entrant.measurement
        name = escape(f"{entrant.name} {entrant.hash[:8]}")
        table.add_row(
            name, entrant.proposer, f"{100 * measured.accuracy:.1f}%", f"{measured.bytes_ratio:.3f}"
        )
    return table


def _point(ratio: float, accuracy: float) -> str:
    return f"{100 * accuracy:.0f}%@{ratio:.3f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
