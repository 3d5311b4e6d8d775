"""The command line of the export. Imports nothing heavy: `--help` must be quick."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(add_completion=False)

BROKEN, UNUSABLE = 1, 2


class EngineChoice(StrEnum):
    HF = "hf"
    SGLANG = "sglang"


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
    engine: Annotated[
        EngineChoice | None,
        typer.Option(help="With --verify: what measures; by default what the record was made with."),
    ] = None,
    attention_backend: Annotated[
        str | None, typer.Option(help="With --engine sglang: dense attention, if not as recorded.")
    ] = None,
    tp: Annotated[
        int | None, typer.Option(min=1, help="With --engine sglang: GPUs of the engine, if not as recorded.")
    ] = None,
    serve: Annotated[
        bool, typer.Option(help="With --verify: also start the launch script and send it a request.")
    ] = False,
    server_options: Annotated[
        str, typer.Option(help="With --serve: more options of the server, in one string.")
    ] = "",
    force: Annotated[bool, typer.Option(help="Replace a folder that is not empty.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report or verdict as JSON on stdout.")] = False,
) -> None:
    """Take a candidate away as a folder to deploy, or check such a folder."""
    from vortex.errors import VortexError

    console = Console(stderr=as_json, soft_wrap=True)
    try:
        if verify is not None and candidate is None and to is None:
            options = {"attention_backend": attention_backend, "tp_size": tp}
            server = shlex.split(server_options) if serve else None
            code = _verify(verify, runs_dir / "cache", model, engine, options, server, as_json, console)
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


def _verify(
    folder: Path,
    cache: Path,
    model: Path | None,
    engine: EngineChoice | None,
    options: dict[str, Any],
    server: list[str] | None,
    as_json: bool,
    console: Console,
) -> int:
    from agent.export.measure import EngineName
    from agent.export.report import Serving
    from agent.export.verify import verify

    name: EngineName | None = None if engine is None else engine.value
    verdict = verify(folder, cache, model, engine=name, serving=Serving(**options), server=server)
    mean, low, high = (100 * value for value in verdict.recorded)
    for problem in verdict.problems:
        console.print(f"FAILS: {problem}", style="red", markup=False)
    for note in verdict.notes:
        console.print(f"note: {note}", markup=False)
    if verdict.accuracy is not None and verdict.bytes_ratio is not None:
        console.print(
            f"{verdict.name}: recorded accuracy {mean:.1f}% [{low:.1f}, {high:.1f}]; measured again "
            f"{100 * verdict.accuracy:.1f}%, {100 * verdict.bytes_ratio:.1f}% of dense's bytes, "
            f"by {verdict.engine} on {verdict.device}",
            markup=False,
        )
    if (served := verdict.served) is not None:
        faster = f", {served.crossover_steps} dense to be faster" if served.crossover_steps else ""
        console.print(
            f"{served.engine} served {served.completion.completion_tokens} tokens after "
            f"{served.completion.prompt_tokens}: {served.sparse_steps} of {served.decode_steps} decode steps "
            f"since its start were sparse{faster}; {served.blocks_read} of {served.blocks_total} blocks read",
            markup=False,
        )
    if verdict.holds:
        console.print("holds: hashes agree, and the score lies in the recorded interval", style="green")
    if as_json:
        sys.stdout.write(verdict.model_dump_json() + "\n")
    return 0 if verdict.holds else BROKEN
