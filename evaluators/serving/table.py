"""Serving reports for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from evaluators.measure.speed import Spread
    from evaluators.serving.report import Comparison, DecodePoint, LoadPoint, Run, ServingReport, SparseWork

DECODE_NOTE = (
    "step: one decode step of the full batch, from when its tokens came back; prefill and queueing are not "
    "in it. published: new tokens of the batch / seconds of its slowest request, prefill in it, prefix cache "
    "empty at first. Medians [10th-90th percentile of the repeats]; ratio: dense / sparse step, each repeat "
    "with each, against the fastest dense. blocks: read by sparse layers / all."
)
LOAD_NOTE = (
    "per token: from a request's first token to its last; first token: from when the request was due. "
    "Poisson arrivals, the same times for every run. Median / 95th percentile of requests."
)


def shown(report: ServingReport) -> RenderableType:
    """What was measured, on what, and what is in the numbers."""
    parts: list[RenderableType] = []
    if any(run.decode for run in report.runs):
        parts += [_decode(report), Text(DECODE_NOTE, style="dim")]
    if any(run.load for run in report.runs):
        parts += [_load(report), Text(LOAD_NOTE, style="dim")]
    parts += [Text(f"{one.flow} was not measured: {one.reason}", style="red") for one in report.failed]
    return Group(*parts, Text("\n".join(_facts(report)), style="dim"))


def _decode(report: ServingReport) -> Table:
    table = _table("flow", "tokens in,\nbatch", "step, ms", "dense /\nsparse", "tokens/s,\nsteady")
    table.add_column("tokens/s,\npublished", justify="right")
    table.add_column("blocks", justify="right")
    compared = {(c.flow, c.tokens_in, c.batch): c for c in report.comparisons}
    for run in report.runs:
        for point in run.decode:
            ratio = compared.get((run.flow, point.tokens_in, point.batch)) if run.graph else None
            table.add_row(*_decode_row(run, point, ratio))
    return table


def _decode_row(run: Run, point: DecodePoint, ratio: Comparison | None) -> Iterator[str]:
    from evaluators.measure.speed import Spread

    yield _name(run)
    yield f"{point.tokens_in:,}\nx {point.batch}"
    yield _spread(point.step, 2)
    yield _spread(ratio.ratio, 2) if ratio else "-"
    yield _spread(point.tokens_per_s, 0)
    yield _spread(Spread.of(point.published), 0) if point.published else "-"
    yield _share(point.work)


def _load(report: ServingReport) -> Table:
    table = _table("flow", "tokens in,\nout", "requests/s,\nfinished", "per token,\nms", "first token,\nms")
    table.add_column("blocks", justify="right")
    for run in report.runs:
        for point in run.load:
            table.add_row(*_load_row(run, point))
    return table


def _load_row(run: Run, point: LoadPoint) -> Iterator[str]:
    yield _name(run)
    yield f"{point.tokens_in:,}\n{point.tokens_out:,}"
    yield f"{point.rate:g}\n{point.finished_rate:.2f}"
    yield f"{point.per_token_ms.p50:.2f}\n{point.per_token_ms.p95:.2f}"
    yield f"{point.first_token_ms.p50:,.0f}\n{point.first_token_ms.p95:,.0f}"
    yield _share(point.work)


def _table(flow: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(flow, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _name(run: Run) -> str:
    return escape(f"{run.flow}\n{run.engine.mode}")


def _spread(spread: Spread, digits: int) -> str:
    return escape(f"{spread.median:,.{digits}f}\n[{spread.low:,.{digits}f}-{spread.high:,.{digits}f}]")


def _share(work: SparseWork | None) -> str:
    return str(work).replace(" in ", "\nin ") if work else "all"


def _facts(report: ServingReport) -> Iterator[str]:
    model, engine = report.model, report.runs[0].engine
    sizes = f"{model.layers} layers, {model.heads} / {model.kv_heads} heads of {model.head_dim}"
    yield f"model: {model.label}, {sizes}"
    yield f"engine: {engine.name}, {engine.dtype}"
    for run in report.runs:
        on = [
            name
            for name, there in (
                ("CUDA graphs", run.engine.cuda_graphs),
                ("overlap schedule", run.engine.overlap_schedule),
                ("prefix cache", run.engine.prefix_cache),
            )
            if there
        ]
        yield (
            f"{run.flow} ({run.engine.attention_backend}): page {run.engine.page_size}, "
            f"{', '.join(on) or 'no options'} on" + (f", {run.config}" if run.config else "")
        )
    repeats = {len(point.step_ms) for run in report.runs for point in run.decode}
    new = {point.tokens_out for run in report.runs for point in run.decode}
    if repeats:
        yield f"{_list(repeats)} repeats of {_list(new)} new tokens"
    yield f"{report.date:%Y-%m-%d %H:%M} UTC, seed {report.seed}"


def _list(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
