"""`python -m evaluators.serving throughput|latency`: flows against dense attention inside SGLang."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from evaluators.serving.latency import LoadPlan
    from evaluators.serving.throughput import DecodePlan

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Number = TypeVar("Number", int, float)
Model = Annotated[Path | None, typer.Option(help="Folder of a model; default: the probe's.")]
Dummy = Annotated[
    str | None,
    typer.Option(help="A geometry with dummy weights instead: qwen3-0.6b, -1.7b, -4b, -8b."),
]
Flows = Annotated[
    list[str] | None,
    typer.Option("--flow", help="Registered flow, flow file or graph.json; repeatable: one engine for all."),
]
Configs = Annotated[
    list[str] | None,
    typer.Option("--config", help="VortexConfig as JSON or a file; one for all flows, or one for each."),
]
Dense = Annotated[
    list[str] | None,
    typer.Option(help="Backend of a dense engine, repeatable; default: the flows'. 'none': no dense engine."),
]
Backend = Annotated[str | None, typer.Option(help="What the flows' dense parts run on: flashinfer, fa3, ...")]
Engine = Annotated[
    str,
    typer.Option(help="More settings of both engines, JSON: page_size, tp_size, mem_fraction_static, ..."),
]
Extra = Annotated[str, typer.Option(help="SGLang's own keyword arguments for both engines, as JSON.")]
Seed = Annotated[int, typer.Option(help="Of prompts and arrival times.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one engine, its start included.")]
Out = Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")]


@app.command()
def throughput(
    lengths: Annotated[str, typer.Option(help="Prompt tokens, separated by commas.")] = "4096",
    batch: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    new: Annotated[int, typer.Option(min=4, help="New tokens of each request.")] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="Timed generations of each length.")] = 5,
    cold: Annotated[
        int, typer.Option(min=0, help="Repeats with an empty prefix cache: the published measure.")
    ] = 2,
    model: Model = None, dummy_geometry: Dummy = None, flow: Flows = None, config: Configs = None,
    dense: Dense = None, attention_backend: Backend = None, engine: Engine = "{}", extra: Extra = "{}",
    seed: Seed = 0, timeout: Timeout = 1800.0, out: Out = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Time of a decode step at given lengths and batch, and the published measure."""
    from evaluators.serving.throughput import DecodePlan

    plan = DecodePlan(
        lengths=_numbers(int, lengths, "--lengths"), batch=batch, new=new, repeats=repeats,
        cold=cold, seed=seed,
    )  # fmt: skip
    _measure(
        model, dummy_geometry, flow, config, dense, attention_backend, engine, extra, timeout, out, as_json,
        decode=plan,
    )  # fmt: skip


@app.command()
def latency(
    rates: Annotated[str, typer.Option(help="Requests a second, separated by commas.")] = "1",
    requests: Annotated[int, typer.Option(min=2, help="Requests at each rate.")] = 64,
    length: Annotated[int, typer.Option(min=1, help="Prompt tokens of each.")] = 4096,
    new: Annotated[int, typer.Option(min=2, help="New tokens of each.")] = 128,
    model: Model = None, dummy_geometry: Dummy = None, flow: Flows = None, config: Configs = None,
    dense: Dense = None, attention_backend: Backend = None, engine: Engine = "{}", extra: Extra = "{}",
    seed: Seed = 0, timeout: Timeout = 1800.0, out: Out = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Time per output token and to the first one when requests arrive at random."""
    from evaluators.serving.latency import LoadPlan

    plan = LoadPlan(
        rates=_numbers(float, rates, "--rates"), requests=requests, length=length, new=new,
        seed=seed,
    )  # fmt: skip
    _measure(
        model, dummy_geometry, flow, config, dense, attention_backend, engine, extra, timeout, out, as_json,
        load=plan,
    )  # fmt: skip


def _measure(
    model: Path | None, geometry: str | None, flows: list[str] | None, configs: list[str] | None,
    dense: list[str] | None, backend: str | None, engine: str, extra: str, timeout: float, out: Path | None,
    as_json: bool, *, decode: DecodePlan | None = None, load: LoadPlan | None = None,
) -> None:  # fmt: skip
    from rich.console import Console

    from evaluators.probe import PROBE_PATH
    from evaluators.serving.dummy import write_geometry
    from evaluators.serving.engine import ServingOptions
    from evaluators.serving.table import shown
    from evaluators.serving.timing import DUMMY, compare, open_flow
    from vortex.config import VortexConfig
    from vortex.errors import VortexError

    if model is not None and geometry is not None:
        raise typer.BadParameter("--model and --dummy-geometry exclude each other")
    texts = configs or ["{}"]
    names = flows or []
    if len(texts) not in (1, len(names)):
        raise typer.BadParameter(f"{len(texts)} --config for {len(names)} --flow: give one, or one for each")
    settings: dict[str, Any] = {"extra": _object(extra, "--extra"), **_object(engine, "--engine")}
    if backend is not None:
        settings["attention_backend"] = backend
    with tempfile.TemporaryDirectory(prefix="vortex-geometry-") as folder:
        try:
            path = model or PROBE_PATH
            if geometry is not None:
                path, settings["load_format"] = write_geometry(geometry, Path(folder)), DUMMY
            options = ServingOptions.for_machine(**settings)
            pairs = zip(names, texts * len(names) if len(texts) == 1 else texts, strict=False)
            report = compare(
                path,
                options,
                [open_flow(name, VortexConfig.from_text(text), path, options) for name, text in pairs],
                decode=decode,
                load=load,
                dense=[name for name in dense if name != "none"] if dense else None,
                timeout=timeout,
                label=f"{geometry} geometry" if geometry else None,
            )
        except (VortexError, ValueError, OSError) as error:
            Console(stderr=True).print(f"{error}", style="red", markup=False)
            raise typer.Exit(1) from None
    text = report.model_dump_json(indent=1)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        console = Console()
        (console if console.is_terminal else Console(width=110)).print(shown(report))
    if report.failed:
        raise typer.Exit(1)


def _numbers(kind: Callable[[str], Number], text: str, name: str) -> tuple[Number, ...]:
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) <= 0:
        raise typer.BadParameter(f"{name} must be numbers above 0 with commas between, got {text!r}")
    return found


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{name} must be a JSON object, got {text}")
    return found


if __name__ == "__main__":
    app(prog_name="python -m evaluators.serving")
