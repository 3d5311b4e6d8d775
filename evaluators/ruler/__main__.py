"""Shows RULER samples and their data: `python -m evaluators.ruler --task vt --length 1024`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evaluators.ruler import Prompt

EDGE = 500
"""Characters shown of either end of a prompt."""


def main(
    task: Annotated[list[str] | None, typer.Option(help="RULER task, repeatable; default: all 13.")] = None,
    length: Annotated[int, typer.Option(min=64, help="Tokens of a prompt and its answer together.")] = 1024,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each task.")] = 1,
    seed: int = 0,
    model: Annotated[
        Path | None, typer.Option(help="Folder with the tokenizer; default: the probe's.")
    ] = None,
    essay: Annotated[str | None, typer.Option(help="The published essays: local path or hub id.")] = None,
    squad: Annotated[str | None, typer.Option(help="SQuAD v2 dev, for qa_1: JSON or hub id.")] = None,
    hotpotqa: Annotated[str | None, typer.Option(help="HotpotQA dev, for qa_2: JSON or hub id.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also save each task as a `datasets` folder here.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Show whole prompts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document with whole prompts.")] = False,
) -> None:
    """Generate RULER samples, show them, and say which tasks ran on which data."""
    from evaluators.ruler import TASKS, LengthError, SourceError, Sources, generate

    unknown = [name for name in task or () if name not in TASKS]
    if unknown:
        raise typer.BadParameter(f"unknown task {unknown[0]!r}; the tasks are {', '.join(TASKS)}")
    tokenizer = _tokenizer(model)
    sources = Sources(essay, squad, hotpotqa)
    made: dict[str, list[Prompt]] = {}
    left_out: dict[str, str] = {}
    for name in task or TASKS:
        try:
            made[name] = generate(name, length, tokenizer, samples, seed, sources)
        except (LengthError, SourceError) as error:
            left_out[name] = str(error)
    if out is not None:
        from evaluators.ruler import dataset

        for name in made:
            dataset(name, length, tokenizer, samples, seed, sources).save_to_disk(out / name)
    if as_json:
        _print_json(made, left_out)
    else:
        _print_text(made, left_out, full)
    if not made:
        raise typer.Exit(1)


def _tokenizer(model: Path | None) -> Any:
    from transformers import AutoTokenizer

    if model is None:
        from evaluators.probe.load import PROBE_PATH as model  # noqa: N811
    elif not model.is_dir():
        raise typer.BadParameter(f"{model} is no folder: give the folder of a model or tokenizer")
    return AutoTokenizer.from_pretrained(model, local_files_only=True)


def _print_json(made: dict[str, list[Prompt]], left_out: dict[str, str]) -> None:
    import json

    document = {
        "data": {name: prompts[0].source for name, prompts in made.items()},
        "left_out": left_out,
        "samples": [vars(prompt) for prompts in made.values() for prompt in prompts],
    }
    typer.echo(json.dumps(document, ensure_ascii=False))


def _print_text(made: dict[str, list[Prompt]], left_out: dict[str, str], full: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for prompts in made.values():
        for prompt in prompts:
            tokens = f"{len(prompt.ids)} + {prompt.max_new_tokens} of {prompt.length} tokens"
            console.rule(f"{prompt.task} {prompt.index}: {tokens}")
            short = full or len(prompt.text) <= 2 * EDGE
            text = prompt.text if short else f"{prompt.text[:EDGE]}\n[...]\n{prompt.text[-EDGE:]}"
            console.print(Text(text))
            console.print(Text(f"answers ({prompt.metric}): {', '.join(prompt.answers)}", style="bold"))
    table = Table("task", "data")
    for name, prompts in made.items():
        table.add_row(name, prompts[0].source)
    for name, reason in left_out.items():
        table.add_row(name, f"did not run: {reason}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
