"""Reports for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from vortex.check.report import ConfigReport, CostReport, Finding, FlowReport, Note, OpReport, Report
from vortex.flow.verify import Attempt, CompileReport

WIDTH = 110
"""Of output that is no terminal's."""


def printer(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


def show(report: Report, console: Console) -> None:
    """The whole report."""
    for part in _report(report):
        console.print(part)


def _report(report: Report) -> Iterator[RenderableType]:
    file = report.file or ""
    if report.source is not None:
        after = " (executed all the same: --trust)" if report.trusted else ""
        yield _finding(file, report.source, "allow-list" + after)
    if report.error is not None:
        yield _finding(file, report.error)
    for flow in report.flows:
        yield from _flow(file, flow)
    if report.config is not None:
        yield from _config(report.config)
    yield "[green]ok[/]" if report.ok else "[red]not ok[/]"


def _flow(file: str, flow: FlowReport) -> Iterator[RenderableType]:
    about = [f"{flow.kind}" if flow.kind else "", f"hash {flow.hash[:12]}" if flow.hash else ""]
    yield f"[bold]{escape(flow.name)}[/]  {'  '.join(part for part in about if part)}"
    if flow.ops:
        yield _ops(flow.ops)
    for field in flow.fields:
        yield escape(f"field {field.name} {field.shape} a {field.per}, {field.bytes:,} bytes")
    for guard in flow.guards:
        yield escape(f"relies on {guard}")
    if flow.cost is not None:
        yield from _cost(flow.cost)
    for sentence in flow.advice:
        yield f"[yellow]advice:[/] {escape(sentence)}"
    if flow.error is not None:
        yield _finding(file, flow.error)


def _ops(ops: Iterable[OpReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("#", "line"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("stage", "op", "operands", "result"):
        table.add_column(heading, overflow="fold")
    for op in ops:
        operands = ", ".join(f"{value.name} {value.shape}" for value in op.operands)
        target = "o" if op.result is None else op.result.shape
        result = target if op.writes is None else f"{target} to {op.writes}"
        cells = (str(op.number), str(op.line or ""), op.stage, op.op, operands, result)
        table.add_row(*map(escape, cells))
    return table


def _cost(cost: CostReport) -> Iterator[RenderableType]:
    shape = ", ".join(f"{name} {size}" for name, size in cost.geometry.items() if size)
    yield (
        f"one decode step of one row (request x kv head) of {cost.context:,} tokens, "
        f"{cost.chosen:,} of {cost.blocks:,} blocks chosen;\n{shape}:"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for heading in ("bytes", "of dense", "flops"):
        table.add_column(heading, justify="right")
    rows = {**cost.parts, "total": cost.total, "dense": cost.dense}
    for name, part in rows.items():
        share = f"{100 * part.bytes / cost.dense.bytes:.1f}%"
        style = "bold" if name == "total" else ""
        table.add_row(name, f"{part.bytes:,.0f}", share, f"{part.flops:,.0f}", style=style)
    yield table


def _config(config: ConfigReport) -> Iterator[RenderableType]:
    yield f"[bold]configuration[/] {escape(config.path or 'given as text')}"
    if config.compiled is not None:
        yield f"the flow traces for {config.compiled} of {config.combinations} shapes"
    yield from _notes(config.errors, "[red]error:[/]")
    yield from _notes(config.warnings, "[yellow]warning:[/]")


def _notes(notes: Iterable[Note], label: str) -> Iterator[str]:
    for note in notes:
        yield f"{label} {escape(f'{note.key}: ' if note.key else '')}{escape(note.message)}"


def _finding(file: str, finding: Finding, by: str = "") -> str:
    where = ":".join(part for part in (file, str(finding.line or "")) if part)
    what = f"{finding.op}: {finding.message}" if finding.op else finding.message
    shapes = f" (got {', '.join(finding.shapes)})" if finding.shapes else ""
    hint = f". {finding.hint}" if finding.hint else ""
    kind = " by the ".join(part for part in (finding.kind, by) if part)
    return f"[red]{escape(where)}[/] {escape(f'{kind}: {what}{shapes}{hint}')}"


def show_sweep(report: CompileReport, console: Console) -> None:
    """A compile sweep: how many shapes compile for each target and number format, then each error once."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("target", "dtype"):
        table.add_column(heading)
    for heading in ("compiled", "of"):
        table.add_column(heading, justify="right")
    asked = Counter((attempt.target, attempt.dtype) for attempt in report.attempts)
    done = Counter((attempt.target, attempt.dtype) for attempt in report.compiled)
    for (target, dtype), count in asked.items():
        table.add_row(target or "graph", dtype, str(done[target, dtype]), str(count))
    console.print(f"[bold]{escape(report.flow)}[/]  {report.kind}", table)
    for first, *more in _alike(report.failed):
        console.print(
            f"[red]{1 + len(more)} times:[/] {escape(str(first.error))}\n  first at {escape(str(first))}"
        )


def _alike(attempts: Iterable[Attempt]) -> Iterable[list[Attempt]]:
    """The attempts whose errors differ in numbers only."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(re.sub(r"\d+", "", str(attempt.error)), []).append(attempt)
    return groups.values()
