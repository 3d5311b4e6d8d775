"""The command line of `vortex.engine.sgl.check_engine_config`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

UNUSABLE = 2


@app.command()
def check_engine_config(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON configuration.")],
    graph_only: Annotated[bool, typer.Option(help="Trace the flow only: no target, no torch.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Preflight: would an engine start with this configuration?

    Exit code 0: yes, 1: no, 2: the file is no JSON object. The flow that it names is executed.
    """
    from vortex.check.check import noted
    from vortex.check.report import Report
    from vortex.check.tables import printer, show
    from vortex.engine.sgl.check_engine_config import inspect_engine_config
    from vortex.errors import ConfigError
    from vortex.flow.verify import GRAPH_ONLY

    try:
        found = inspect_engine_config(file, targets=GRAPH_ONLY if graph_only else None)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    report = Report(None, config=noted([found], str(file)))
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        show(report, printer())
    raise typer.Exit(0 if report.ok else 1)
