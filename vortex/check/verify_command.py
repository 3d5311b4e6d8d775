"""The command line of `vortex.flow.verify`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from vortex.config import Dtype

app = typer.Typer(add_completion=False)

UNUSABLE = 2


@app.command()
def verify(
    flow: Annotated[str, typer.Argument(help="Registered name, flow file, or flow.py:name.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Target to build programs for (may be repeated); default: all.")
    ] = None,
    block_size: Annotated[list[int] | None, typer.Option(min=1, max=65536, help="May be repeated.")] = None,
    head_dim: Annotated[list[int] | None, typer.Option(min=1, max=65536, help="May be repeated.")] = None,
    group: Annotated[list[int] | None, typer.Option(min=1, max=65536, help="May be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    graph_only: Annotated[bool, typer.Option(help="Trace only: no target, no torch.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Does a flow compile, for which shapes, number formats and targets?

    Exit code 0: for some of them at least, 1: for none, 2: there is no such flow.
    """
    from vortex.check.tables import printer, show_sweep
    from vortex.errors import VortexError
    from vortex.flow.verify import DTYPES, GRAPH_ONLY, VerifyError, verify_flow_compilable

    try:
        report = verify_flow_compilable(
            flow,
            block_sizes=block_size,
            head_dims=head_dim,
            groups=group,
            dtypes=cast("list[Dtype]", dtype) if dtype else DTYPES,
            targets=GRAPH_ONLY if graph_only else target,
        )
    except VerifyError as error:
        report = error.report
    except VortexError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNUSABLE) from None
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict()) + "\n")
    else:
        show_sweep(report, printer())
    raise typer.Exit(0 if report.compiled else 1)
