"""`python -m benchmarks.sglang COMMAND`; every command prints its table last and writes JSON to --out."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from benchmarks.sglang.decode import CONTENDERS, HEADER, measure_steps, started
from benchmarks.sglang.geometry import SHAPES, write_model

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path | None, typer.Option(help="also write what was measured to this file, as JSON")]


@app.callback()
def main() -> None:
    """What the SGLang engine does on a GPU."""


def save(out: Path | None, results: Sequence[BaseModel], **about: Any) -> None:
    if out is None:
        return
    document = {
        "date": date.today().isoformat(),
        "machine": machine(),
        **about,
        "results": [result.model_dump(mode="json") for result in results],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, str]:
    import sglang
    import torch

    return {
        "gpu": torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sglang": sglang.__version__,
    }


@app.command()
def decode(
    contender: Annotated[list[str], typer.Option(help="flashinfer and fa3 are untouched SGLang")],
    tokens: Annotated[list[int], typer.Option(help="prompt lengths")],
    shape: Annotated[str, typer.Option(help=f"one of {', '.join(SHAPES)}")] = "Qwen3-1.7B",
    batch: int = 16,
    new_tokens: int = 128,
    repeats: int = 5,
    seed: int = 0,
    out: Out = None,
) -> None:
    """Time of one decode step, dummy weights, CUDA graphs where the contender has them."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(shape, Path(folder))
        for name in contender:
            with started(model, load_format="dummy", mem_fraction_static=0.8, **CONTENDERS[name]()) as engine:
                steps = measure_steps(
                    engine, name, tokens, batch=batch, new_tokens=new_tokens, repeats=repeats, seed=seed
                )
                for step in steps:
                    print(step.line, flush=True)
                    results.append(step)
    save(out, results, shape=shape, weights="dummy")
    print("\n".join([HEADER, *(result.line for result in results)]))


if __name__ == "__main__":
    app()
