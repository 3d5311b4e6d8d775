"""Writes a probe's card: `python -m evaluators.probe.describe --dense dense.json`.

dense.json is what training measured; the accuracy by budget is measured here, on the CPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def main(
    dense: Annotated[Path, typer.Option(help="dense.json of the training run.")],
    training: Annotated[
        str, typer.Option(help="One sentence: hardware, time and tokens of the training run.")
    ],
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model; default: the shipped probe.")
    ] = None,
    length: int = 4096,
    samples: Annotated[int, typer.Option(help="Prompts a task in the budget table.")] = 8,
    cache: Path = Path("runs/cache"),
) -> None:
    """Measure accuracy by budget and write card.json and README.md beside the weights."""
    from pydantic import TypeAdapter

    from evaluators.probe.budgets import BLOCK_SIZE, budget_scores
    from evaluators.probe.card import Card, DenseScore
    from evaluators.probe.load import PROBE_PATH
    from evaluators.probe.model import MODEL_TYPES

    folder = model or PROBE_PATH
    shape = MODEL_TYPES[json.loads((folder / "config.json").read_text())["model_type"]]
    scores = TypeAdapter(tuple[DenseScore, ...]).validate_json(dense.read_bytes())
    draft = Card(
        shape=shape,
        dense=scores,
        training=training,
        budget_length=length,
        budget_samples=samples,
        budget_block_size=BLOCK_SIZE,
        budgets=(),
    )
    budgets = []
    for found in budget_scores(folder, shape, draft.counted(length), length, samples, cache):
        print(
            f"{found.selection:14s} {found.blocks:3d} blocks {found.score:.3f}"
            f" [{found.low:.3f}, {found.high:.3f}]",
            flush=True,
        )
        budgets.append(found)
    card = draft.model_copy(update={"budgets": tuple(budgets)})
    (folder / "card.json").write_text(card.model_dump_json(indent=1) + "\n")
    (folder / "README.md").write_text(card.markdown())


if __name__ == "__main__":
    typer.run(main)
