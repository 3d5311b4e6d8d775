"""The command line of the search. Imports nothing heavy: `--help` must be quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from agent.search import interrupts
from agent.views.console import printer

if TYPE_CHECKING:
    from agent.search.settings import SearchSettings

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

# What may change when a run is resumed; everything else decides the outcome and stays.
_FREE = (
    "budget",
    "contenders",
    "executor",
    "workers",
    "timeout",
    "patience",
    "max_proposals",
    "mem_fraction",
)


@app.command()
def search(
    context: typer.Context,
    budget: Annotated[
        int,
        typer.Option(
            min=1,
            help="Distinct proposed candidates to measure on all search prompts. Dense attention and the "
            "seed flows are measured first, as references, and are not counted; neither are rejected "
            "proposals, duplicates, failed evaluations, or candidates stopped after the first prompts. "
            "Seeds are the flows that ship for the model's kind, the best known first: a third as many as "
            "the budget, and at least 3.",
        ),
    ] = 50,
    proposer: Annotated[
        str, typer.Option(help="auto (llm with an OPENAI_API_KEY, else evolution), llm, evolution or random.")
    ] = "auto",
    llm: Annotated[str | None, typer.Option(help="Model name for the llm proposer.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of the model to search for; default: the probe.")
    ] = None,
    length: Annotated[int, typer.Option(min=256, help="Prompt length in tokens.")] = 2048,
    prompts_per_task: Annotated[int, typer.Option(min=2, help="Search prompts of each RULER task.")] = 8,
    heldout_per_task: Annotated[
        int, typer.Option(min=2, help="Held-out prompts of each task, for the front.")
    ] = 8,
    gate_per_task: Annotated[
        int, typer.Option(min=1, help="Prompts of each task that a candidate meets first.")
    ] = 2,
    tasks: Annotated[str | None, typer.Option(help="RULER tasks, comma-separated; default: all.")] = None,
    essays: Annotated[
        str | None, typer.Option(help="Essay text for the haystack (path or hub name).")
    ] = None,
    squad: Annotated[str | None, typer.Option(help="SQuAD v2 data for qa_1 (path or hub name).")] = None,
    hotpot: Annotated[str | None, typer.Option(help="HotpotQA data for qa_2 (path or hub name).")] = None,
    engine: Annotated[
        str, typer.Option(help="What runs the model: hf (transformers, on the CPU) or sglang (on GPUs).")
    ] = "hf",
    attention_backend: Annotated[
        str | None,
        typer.Option(help="SGLang: dense attention; default: flashinfer, or torch_native without a GPU."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="SGLang: of weights and activations; default: bfloat16 on a GPU.")
    ] = None,
    kv_dtype: Annotated[
        str | None, typer.Option(help="SGLang: of the KV cache; default: as --dtype.")
    ] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="SGLang: GPUs of one engine; default: 1.")] = None,
    mem_fraction: Annotated[
        float | None, typer.Option(help="SGLang: share of a GPU's memory for weights and KV cache.")
    ] = None,
    executor: Annotated[str, typer.Option(help="Where evaluations run: ray or local.")] = "ray",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; default: one per core, with sglang one per --tp GPUs."),
    ] = None,
    accuracy_floor: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="How far below dense a useful candidate's accuracy may lie."),
    ] = 0.05,
    contenders: Annotated[
        int,
        typer.Option(min=0, help="How many of the best to time against dense attention, alone, at the end."),
    ] = 2,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds for one evaluation.")] = 120.0,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop after this many proposals in a row without a new candidate.")
    ] = 200,
    max_proposals: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many proposals; default: 20 x budget + 100.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=399_999, help="Of prompts, proposer and study.")] = 0,
    db: Annotated[str | None, typer.Option(help="Ledger: SQLAlchemy URL or SQLite file.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Folder of the ledger, plots and caches.")] = Path("runs"),
    resume: Annotated[
        str | None,
        typer.Option(metavar="[RUN]", help="Continue a run: its name or number; without one, the newest."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout; progress goes to stderr.")
    ] = False,
) -> None:
    """Search for sparse-attention algorithms: propose, check, measure, learn; the ledger keeps every step."""
    from pydantic import ValidationError

    from agent.ledger import LedgerError
    from agent.search.run import Order, execute
    from vortex.errors import VortexError

    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    console = printer(stderr=as_json)
    database = db or str(runs_dir / "ledger.db")
    try:
        settings = None if resume else _settings(context.params)
        changes = {name: given[name] for name in _FREE if name in given}
        if resume:
            _refuse_changes(given)
        order = Order(database, runs_dir, resume, settings, changes, as_json)
        code = execute(order, console)
    except ValidationError as error:
        _fail(console, "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except LedgerError as error:
        _fail(console, str(error))
    except VortexError as error:
        _fail(console, f"{error}")
    else:
        raise typer.Exit(code)


def main() -> None:
    """Run the command. `--resume` may stand alone; SIGTERM ends a search as Ctrl-C does."""
    interrupts.install()
    app(args=_with_run(sys.argv[1:]), prog_name="python -m agent.search")


def _with_run(arguments: list[str]) -> list[str]:
    found = []
    for position, argument in enumerate(arguments):
        found.append(argument)
        following = arguments[position + 1 : position + 2]
        if argument == "--resume" and (not following or following[0].startswith("-")):
            found.append("last")
    return found


def _settings(parameters: dict[str, Any]) -> SearchSettings:
    from agent.search.settings import SearchSettings

    values = {name: parameters[name] for name in SearchSettings.model_fields if name in parameters}
    values["tasks"] = tuple(name.strip() for name in (parameters["tasks"] or "").split(",") if name.strip())
    return SearchSettings.model_validate(values)


def _refuse_changes(given: dict[str, Any]) -> None:
    from agent.search.errors import SearchError

    fixed = [name for name in given if name not in (*_FREE, "resume", "db", "runs_dir", "as_json")]
    if fixed:
        names = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise SearchError(f"{names} cannot change when a run is resumed: leave it out, or start a new run")


def _fail(console: Console, text: str) -> None:
    console.print(text, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
