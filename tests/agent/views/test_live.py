from __future__ import annotations

import io

from rich.console import Console

from agent.ledger import Ledger, Role, Status
from agent.ledger.records import Spend
from agent.search.board import Board
from agent.search.flight import measurement_of, restored
from agent.search.progress import Progress
from agent.views.live import LineView, LiveView, line, screen, view_for


def progress_of(ledger: Ledger) -> Progress:
    board = Board()
    for row in ledger.candidates(ledger.find_run("last").id, (Status.MEASURED,)):
        measured = measurement_of(row, "search")
        assert measured is not None
        board.add(restored(row).measured(measured))
    progress = Progress("20261121-1", 20, "evolution", 2, board, stage="searching")
    progress.tally |= {Status.MEASURED: 12, Status.REJECTED: 3}
    progress.notices.append("no OPENAI_API_KEY: proposing by evolution instead of an LLM")
    progress.spend = Spend(calls=4, prompt_tokens=1200, completion_tokens=300, cost=0.0123)
    progress.last_reason = "GeMM: last dimension [mismatch]"
    progress.started -= 60.0
    return progress


def test_the_live_view_shows_the_state(finished: Ledger) -> None:
    progress = progress_of(finished)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(screen(progress))
    text = console.export_text()
    for expected in (
        "12/20",
        "ETA 0:40",
        "searching",
        "3 rejected",
        "no OPENAI_API_KEY",
        "$0.0123",
        "[mismatch]",
    ):
        assert expected in text
    best = max(progress.board.front, key=lambda e: e.measurement.accuracy)
    assert f"{100 * best.measurement.accuracy:.1f}%" in text
    assert [e.role for e in progress.board.front].count(Role.DENSE) <= 1


def test_a_terminal_gets_the_live_view_and_a_pipe_gets_lines(finished: Ledger) -> None:
    pipe = io.StringIO()
    view = view_for(Console(file=pipe, width=200))
    assert isinstance(view, LineView)
    progress = progress_of(finished)
    view.start(progress)
    view.update(progress)
    view.update(progress)  # nothing changed: nothing to say
    view.stop()
    lines = pipe.getvalue().splitlines()
    assert lines[0] == "run 20261121-1"
    assert "no OPENAI_API_KEY" in lines[1]
    assert len(lines) == 3
    assert lines[2] == line(progress)
    assert "\x1b" not in pipe.getvalue()
    assert isinstance(view_for(Console(force_terminal=True, file=io.StringIO())), LiveView)


def test_the_live_view_leaves_its_notices_behind(finished: Ledger) -> None:
    out = io.StringIO()
    view = LiveView(Console(force_terminal=True, file=out, width=100))
    progress = progress_of(finished)
    view.start(progress)
    view.notice("a seed could not be measured")
    view.stop()
    assert out.getvalue().rstrip().endswith("a seed could not be measured\x1b[0m")
