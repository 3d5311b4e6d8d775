"""The command line of the export. Imports nothing heavy: `--help` must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(add_completion=False)

BROKEN, UNUSABLE = 1, 2


@app.command()
def export(
    candidate: Annotated[
        str | None,
        typer.Argument(
            help="'best', or the first characters of a candidate's hash. Best: on the front, the fewest "
            "bytes among those whose held-out accuracy is within the floor of the run below dense."
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    verify: Annotated[
        Path | None,
        typer.Option(help="Check this exported folder: hashes, and the score measured again."),
    ] = None,
    run: Annotated[str, typer.Option(help="Run to take from: its name, its number, or 'last'.")] = "last",
    db: Annotated[str, typer.Option(help="Ledger: a SQLAlchemy URL or a SQLite file.")] = "runs/ledger.db",
    runs_dir: Annotated[Path, typer.Option(help="Folder of the prompt cache.")] = Path("runs"),
    model: Annotated[
        Path | None, typer.Option(help="With --verify: the measured model's folder, if it has moved.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a folder that is not empty.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report or verdict as JSON on stdout.")] = False,
) -> None:
    """Take a candidate away as a folder to deploy, or check such a folder."""
    from vortex.errors import VortexError

    console = Console(stderr=as_json, soft_wrap=True)
    try:
        if verify is not None and candidate is None and to is None:
            code = _verify(verify, runs_dir / "cache", model, as_json, console)
        elif candidate is not None and to is not None and verify is None:
            code = _export(candidate, to, run, db, force, as_json, console)
        else:
            console.print("give a candidate and --to FOLDER, or --verify FOLDER", style="red")
            code = UNUSABLE
    except VortexError as error:
        console.print(str(error), style="red", markup=False)
        code = UNUSABLE
    raise typer.Exit(code)


def _export(wanted: str, to: Path, run: str, db: str, force: bool, as_json: bool, console: Console) -> int:
    from agent.export.choose import choose
    from agent.export.folder import export as write
    from agent.ledger import Ledger
    from agent.search.settings import SearchSettings

    with Ledger(db, create=False) as ledger:
        found = ledger.find_run(run)
        floor = SearchSettings.model_validate_json(found.settings).accuracy_floor
        chosen = choose(ledger, found, wanted, floor)
        report = write(ledger, found, chosen, to, force)
    accuracy = report.result.accuracy
    console.print(f"{to}: {report.name}", style="bold", markup=False)
    console.print(f"chosen: {report.chosen}", markup=False)
    console.print(
        f"{report.result.measurement.split}: accuracy {100 * accuracy.mean:.1f}% "
        f"[{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}], "
        f"{100 * report.result.bytes_ratio:.1f}% of dense's bytes",
        markup=False,
    )
    console.print(f"check it: python -m agent.export --verify {to}", markup=False)
    if as_json:
        sys.stdout.write(report.model_dump_json() + "\n")
    return 0


def _verify(folder: Path, cache: Path, model: Path | None, as_json: bool, console: Console) -> int:
    from agent.export.verify import verify

    verdict = verify(folder, cache, model)
    mean, low, high = (100 * value for value in verdict.recorded)
    for problem in verdict.problems:
        console.print(f"FAILS: {problem}", style="red", markup=False)
    for note in verdict.notes:
        console.print(f"note: {note}", markup=False)
    if verdict.accuracy is not None and verdict.bytes_ratio is not None:
        console.print(
            f"{verdict.name}: recorded accuracy {mean:.1f}% [{low:.1f}, {high:.1f}]; measured again "
            f"{100 * verdict.accuracy:.1f}%, {100 * verdict.bytes_ratio:.1f}% of dense's bytes",
            markup=False,
        )
    if verdict.holds:
        console.print("holds: hashes agree, and the score lies in the recorded interval", style="green")
    if as_json:
        sys.stdout.write(verdict.model_dump_json() + "\n")
    return 0 if verdict.holds else BROKEN
