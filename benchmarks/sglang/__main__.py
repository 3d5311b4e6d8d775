"""`python -m benchmarks.sglang COMMAND`: prints its table last; --out also writes what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Protocol

import typer
from pydantic import BaseModel

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path | None, typer.Option(help="Also write what was measured to this file, as JSON.")]
Runs = Annotated[Path, typer.Option(help="Folder of the ledger and of cached prompts.")]


class Result(Protocol):
    @property
    def row(self) -> tuple[str, ...]: ...


@app.command()
def quickstart(
    model: Annotated[
        list[str] | None, typer.Option(help="'probe', or a geometry with dummy weights; repeatable.")
    ] = None,
    out: Out = None,
) -> None:
    """The published Quick Start launch."""
    from benchmarks.sglang.quickstart import COLUMNS, launch

    found = [launch(name) for name in model or ["probe", "qwen3-0.6b"]]
    _show(COLUMNS, found, out)
    if not all(one.counters.sparse_steps + one.counters.crossover_steps for one in found):
        sys.exit("an engine was to be sparse and was not")


@app.command()
def parity(
    model: Annotated[Path | None, typer.Option(help="Default: the probe.")] = None,
    flow: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    topk: Annotated[int, typer.Option(help="Scored blocks of 16 that are read, and two reserved ones.")] = 30,
    length: int = 2048,
    samples: Annotated[int, typer.Option(help="Prompts of each task.")] = 50,
    engine: Annotated[
        str, typer.Option(help="Settings of the engine, JSON: attention_backend, kv_cache_dtype, ...")
    ] = "{}",
    dense: Annotated[
        bool, typer.Option(help="Whether dense attention is compared too: some models have none in SGLang.")
    ] = True,
    runs_dir: Runs = Path("runs"),
    seed: int = 0,
    out: Out = None,
) -> None:
    """RULER, all tasks that the probe's card has, through SGLang and through the hf engine."""
    from benchmarks.sglang.parity import COLUMNS, compare
    from evaluators.measure.spec import WorkloadSpec
    from evaluators.probe import PROBE_PATH
    from evaluators.probe.dense import PROBE_TASKS
    from evaluators.serving.engine import ServingOptions
    from vortex.config import VortexConfig

    spec = WorkloadSpec(
        model=model or PROBE_PATH,
        tasks=PROBE_TASKS,
        length=length,
        samples=samples,
        split="heldout",
        seed=seed,
    )
    names = flow or ["block_sparse_attention", "gqa_quest_sparse_attention", "venergy_gated_centroid"]
    flows = {name: VortexConfig(module_name=name, topk_val=topk, block_size=16) for name in names}
    options = ServingOptions.for_machine(**json.loads(engine))
    found = compare(spec, flows, options, runs_dir / "parity", dense=dense)
    _show(COLUMNS, found, out)


@app.command()
def graphs(
    model: Annotated[
        list[str] | None, typer.Option(help="'probe', or a geometry with dummy weights; repeatable.")
    ] = None,
    backend: Annotated[str, typer.Option(help="What prefill runs on.")] = "flashinfer",
    swaps: Annotated[int, typer.Option(help="How often each flow is deployed.")] = 3,
    out: Out = None,
) -> None:
    """CUDA graphs against eager decode steps, and flows swapped under them."""
    from benchmarks.sglang.graphs import COLUMNS, compare

    found = [row for name in model or ["probe"] for row in compare(name, backend, swaps)]
    _show(COLUMNS, found, out)


@app.command()
def profile(
    geometry: str = "qwen3-1.7b",
    flow: Annotated[list[str] | None, typer.Option(help="Repeatable; 'dense' for none.")] = None,
    config: Annotated[str, typer.Option(help="Fields of the VortexConfig, JSON.")] = "{}",
    backend: str = "flashinfer",
    batch: int = 16,
    length: Annotated[list[int] | None, typer.Option(help="Prompt tokens; repeatable.")] = None,
    most: Annotated[int, typer.Option(help="Lines a flow.")] = 24,
    out: Out = None,
) -> None:
    """Kernels of a steady decode step, and how long the GPU had nothing to do."""
    from benchmarks.sglang.profile import COLUMNS, profile
    from vortex.config import VortexConfig

    found = []
    for name in flow or ["block_sparse_attention"]:
        fields = {"block_size": 16, **json.loads(config), "module_name": name}
        chosen = None if name == "dense" else VortexConfig.model_validate(fields)
        found += profile(geometry, chosen, backend, batch, length or [32000], most)
    _show(COLUMNS, found, out)


@app.command()
def killed(
    budget: int = 10,
    after: Annotated[int, typer.Option(help="Measured candidates before an engine is killed.")] = 5,
    executor: str = "ray",
    runs_dir: Runs = Path("runs"),
    out: Out = None,
) -> None:
    """`agent.search --engine sglang`, one of whose engines gets SIGKILL."""
    from benchmarks.sglang.killed import COLUMNS, search_with_a_kill

    found = search_with_a_kill(budget, after, runs_dir, ["--executor", executor])
    _show(COLUMNS, [found], out)


def _show(columns: Sequence[str], found: Sequence[Result], out: Path | None) -> None:
    """The table as Markdown."""
    if out is not None:
        from evaluators.serving.timing import environment

        results = [one.model_dump(mode="json") for one in found if isinstance(one, BaseModel)]
        document = {"date": date.today().isoformat(), "environment": environment().model_dump(mode="json")}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**document, "results": results}, indent=1) + "\n", encoding="utf-8")
    rows = [columns, ["---"] * len(columns), *(one.row for one in found)]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows), flush=True)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.sglang")
