"""`python -m agent.leaderboard`: shows the best candidates of a ledger."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent.views.console import printer
from agent.views.speed import timings

if TYPE_CHECKING:
    from agent.leaderboard.board import Place

app = typer.Typer(add_completion=False)

APART = (
    "Ranks are within a table: the same prompts, model, engine and device. "
    "Accuracies of different tables cannot be compared."
)


@app.command()
def leaderboard(
    db: Annotated[str, typer.Option(help="Ledger: a SQLAlchemy URL or a SQLite file.")] = "runs/ledger.db",
    run: Annotated[str | None, typer.Option(help="Only this run: its name, its number, or 'last'.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown in the table.")] = 30,
    csv: Annotated[str | None, typer.Option(help="Write all rows as CSV to this file ('-': stdout).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write all rows as one JSON document to stdout.")
    ] = False,
) -> None:
    """The references and fronts of all runs: those that hold the accuracy floor first, then by bytes moved.

    Accuracy and bytes are of held-out prompts where measured. Ranks compare rows of the same prompts, model,
    engine and device; every row says its own.
    """
    from agent.leaderboard.board import places
    from agent.ledger import Ledger, LedgerError

    try:
        with Ledger(db, create=False) as ledger:
            chosen = [ledger.find_run(run)] if run else ledger.runs()
            if not chosen:
                ledger.find_run("last")  # says that there is none yet
            found = places(ledger, chosen)
    except LedgerError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        sys.stdout.write(f"[{','.join(place.model_dump_json() for place in found)}]\n")
    elif csv:
        _write_csv(found, csv)
    else:
        printer().print(board(found[:limit]))


def board(found: list[Place]) -> RenderableType:
    """The leaderboard for people: a table for each set of rows that can be compared."""
    if not found:
        return Text("No candidate has been measured yet.")
    parts = [table(list(places)) for _, places in groupby(found, key=lambda place: place.ground)]
    if len(parts) > 1:
        parts.append(Text(APART, style="dim"))
    return Group(*parts)


def table(found: list[Place]) -> RenderableType:
    """Rows of one ground."""
    first = found[0]
    title = f"{first.model or 'a model without a name'} at {first.length or '?'} tokens"
    view = Table(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left", expand=True)
    view.add_column("#", justify="right")
    view.add_column("candidate", overflow="fold", ratio=3)
    view.add_column("accuracy", justify="right", no_wrap=True)
    view.add_column("bytes / dense", justify="right", no_wrap=True)
    view.add_column("on held-out prompts", overflow="fold", ratio=3)
    for place in found:
        row = place.row
        score = row.heldout or row.search
        accuracy, ratio = score.accuracy, score.bytes_ratio
        notes = [row.verdict] if row.heldout else ["not measured on held-out prompts"]
        notes += [] if row.meets_floor else ["below the accuracy floor"]
        notes += [timed.note for timed in timings(row.speed)]
        name = f"{row.name}{' *' if row.new_graph else ''}\n{row.hash[:12]} by {row.proposer}"
        span = f"[{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}]"
        view.add_row(
            str(place.rank),
            escape(f"{name}\n{place.run}\n{row.ground}"),
            f"{100 * accuracy.mean:.1f}%\n{escape(span)}",
            f"{ratio.mean:.3f}\n{escape(f'[{ratio.low:.3f}, {ratio.high:.3f}]')}",
            escape("\n".join(notes)),
            style="bold green" if row.wins and row.meets_floor else "",
        )
    return view


def _write_csv(found: list[Place], path: str) -> None:
    import csv

    rows = [place.flat() for place in found]
    stream = sys.stdout if path == "-" else open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115
    try:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["rank"])
        writer.writeheader()
        writer.writerows(rows)
    finally:
        if stream is not sys.stdout:
            stream.close()


if __name__ == "__main__":
    app()
