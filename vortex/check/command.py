"""The command line of the check."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

UNUSABLE = 2


@app.command()
def check(
    file: Annotated[
        str, typer.Argument(help="Flow file, JSON configuration of an engine, or name of a shipped flow.")
    ],
    config: Annotated[
        str | None, typer.Option(help="JSON configuration for the flows of FILE: a path, or the text.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only this flow of FILE.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document (see vortex/check/report.py).")
    ] = False,
    trust: Annotated[bool, typer.Option(help="Execute the file even if the allow-list refuses it.")] = False,
    block_size: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Tokens a block, for the cost.")
    ] = None,
    head_dim: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Features a head, for the cost.")
    ] = None,
    group: Annotated[
        int | None, typer.Option(min=1, max=65536, help="Query heads a kv head, for the cost.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of the row, for the cost.")] = None,
) -> None:
    """Check a flow file or an engine's configuration: allow-list, types, cost, advice, settings.

    Runs no model and imports no torch. The file is executed once the allow-list has passed it. Exit code 0:
    ok, 1: errors in the flow or its configuration, 2: wrong use.
    """
    from vortex.check.check import Sizes
    from vortex.check.check import check as examine
    from vortex.errors import VortexError

    sizes = Sizes(block_size, head_dim, group, context)
    try:
        report = examine(file, config=config, name=name, trust=trust, sizes=sizes)
    except VortexError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        from vortex.check.tables import printer, show

        show(report, printer())
    raise typer.Exit(0 if report.ok else 1)
