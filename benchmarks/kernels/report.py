"""The tables, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.kernels.bars import bars
from benchmarks.kernels.cases import FLOWS, QWEN3_8B
from benchmarks.kernels.results import DenseRow, Results, SparseRow
from benchmarks.kernels.text import table

PARTS = ("prologue", "score", "top-k", "attention")
SHORT = {flow: name for name, flow in FLOWS.items()}


def tables(results: Results) -> str:
    """Everything that was measured, one section after another."""
    sections = {
        "What was to be reached": bars(results),
        "One layer of a decode step": _layers(results),
        "Where the time goes": _parts(results, (QWEN3_8B.name,), tuple(FLOWS.values())),
        "Dense kernels": _dense(results),
        "Every flow that ships": _parts(results, contexts=(32768,), batches=(16,)),
        "Top-k": _topk(results),
        "Plan": _plan(results),
        "A new candidate": _cold(results),
    }
    gpu = ", ".join(results.environment.gpus) or results.environment.cpu
    head = (
        f"{results.day.isoformat()}, {gpu}, commit {results.commit}. "
        f"Device copy: {results.copy_gb_s:,.0f} GB/s. Microseconds, median [10th, 90th percentile]."
    )
    failed = [f"- {what}: {why}" for what, why in results.failed.items()]
    if failed:
        sections["Not measured"] = "\n".join(failed)
    parts = [head, *(f"### {title}\n\n{text}" for title, text in sections.items() if text)]
    return "\n\n".join(parts) + "\n"


def _layers(results: Results) -> str:
    """Centroid and Quest beside the best dense kernel, the published baseline and the floors."""
    columns = ["context", "batch", "dense", "CUDA cores"]
    for name in FLOWS:
        columns += [name, "x dense", "x CUDA cores", "floor", "x at the floor"]
    rows = []
    for context, batch in _cases(results):
        dense = results.best_dense(QWEN3_8B.name, context, batch)
        if dense is None:
            continue
        unfair = results.unfair_dense(QWEN3_8B.name, context, batch)
        row = [
            f"{context // 1024}K",
            str(batch),
            f"{_spread(dense)} ({dense.name.removeprefix('FlashInfer, ')})",
            f"{unfair.timing.us:.0f}" if unfair else "-",
        ]
        for flow in FLOWS.values():
            sparse = results.find(QWEN3_8B.name, context, batch, flow)
            row += _ratios(sparse, dense, unfair) if sparse else ["-"] * 5
        rows.append(row)
    return table(columns, rows)


def _ratios(sparse: SparseRow, dense: DenseRow, unfair: DenseRow | None) -> list[str]:
    return [
        _spread(sparse),
        f"{dense.timing.us / sparse.timing.us:.1f}",
        f"{unfair.timing.us / sparse.timing.us:.1f}" if unfair else "-",
        f"{sparse.floor_us:.1f}",
        f"{dense.timing.us / sparse.floor_us:.1f}",
    ]


def _spread(row: SparseRow | DenseRow) -> str:
    timing = row.timing
    digits = 0 if timing.us >= 1000 else 1
    return f"{timing.us:.{digits}f} [{timing.p10:.{digits}f}, {timing.p90:.{digits}f}]"


def _parts(
    results: Results,
    models: Sequence[str] = (),
    flows: Sequence[str] = (),
    contexts: Sequence[int] = (),
    batches: Sequence[int] = (),
) -> str:
    """The stages of flows; no filter: everything. Their times overlap: each starts before the one before it
    has ended, and waits for it."""
    columns = ["model", "flow", "context", "batch", *PARTS, "in the graph", "floor", "of the floor"]
    columns += ["x dense", "launches", "eager", "recall", "error"]
    rows = []
    for row in sorted(results.sparse, key=lambda row: row.model, reverse=True):
        if (
            (models and row.model not in models)
            or (flows and row.flow not in flows)
            or (contexts and row.context not in contexts)
            or (batches and row.batch not in batches)
        ):
            continue
        dense = results.best_dense(row.model, row.context, row.batch)
        rows.append(
            [
                row.model,
                SHORT.get(row.flow, row.flow),
                f"{row.context // 1024}K",
                str(row.batch),
                *(f"{row.parts.get(part, 0.0):.1f}" for part in PARTS),
                _spread(row),
                f"{row.floor_us:.1f}",
                f"{row.timing.us / row.floor_us:.2f}",
                f"{dense.timing.us / row.timing.us:.1f}" if dense else "-",
                f"{row.launches:g}",
                f"{row.eager.us:.0f}",
                f"{row.recall:.4f}",
                f"{row.error:.0e}",
            ]
        )
    return table(columns, rows)


def _dense(results: Results) -> str:
    columns = ("model", "context", "batch", "kernel", "in a graph", "floor", "of the floor", "eager", "error")
    return table(
        columns,
        (
            (
                row.model,
                f"{row.context // 1024}K",
                str(row.batch),
                row.name,
                _spread(row),
                f"{row.floor_us:.1f}",
                f"{row.timing.us / row.floor_us:.2f}",
                f"{row.eager.us:.0f}",
                f"{row.error:.0e}",
            )
            for row in results.dense
        ),
    )


def _topk(results: Results) -> str:
    columns = ("what", "rows x scores", "k", "scores", "us", "floor", "recall")
    return table(
        columns,
        (
            (
                row.name,
                f"{row.rows} x {row.n:,}",
                str(row.k),
                row.scores,
                f"{row.timing.us:.1f} [{row.timing.p10:.1f}, {row.timing.p90:.1f}]",
                f"{row.floor_us:.2f}",
                f"{row.recall:.4f}",
            )
            for row in results.topk
        ),
    )


def _plan(results: Results) -> str:
    columns = ("batch", "context", "page table", "in a graph", "from Python", "launches")
    return table(
        columns,
        (
            (
                str(row.batch),
                f"{row.context // 1024}K",
                "read" if row.table else "kept",
                f"{row.timing.us:.1f} [{row.timing.p10:.1f}, {row.timing.p90:.1f}]",
                f"{row.eager.us:.1f}",
                f"{row.launches:g}",
            )
            for row in results.plan
        ),
    )


def _cold(results: Results) -> str:
    columns = ("flow", "model", "new, s", "from the cache, ms")
    return table(
        columns,
        ((row.flow, row.model, f"{row.cold_ms / 1e3:.2f}", f"{row.cached_ms:.0f}") for row in results.cold),
    )


def _cases(results: Results) -> list[tuple[int, int]]:
    return sorted({(row.context, row.batch) for row in results.dense if row.model == QWEN3_8B.name})
