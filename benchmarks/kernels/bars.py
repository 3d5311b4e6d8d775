"""What the kernels were to reach, beside what they reach."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.kernels.cases import FLOWS, MLA_CASE, QWEN3_8B
from benchmarks.kernels.results import Results, TopKRow
from benchmarks.kernels.text import table

SPEEDUPS = (
    ("centroid, 32K x 16: of the best dense", QWEN3_8B.name, FLOWS["centroid"], 8.0),
    ("Quest, 32K x 16: of the best dense", QWEN3_8B.name, FLOWS["Quest"], 6.0),
    (
        "GLM-4.7-Flash's latents, 32K x 16: of the best dense",
        MLA_CASE.model.name,
        "rope_aware_block_sparse_mla",
        5.0,
    ),
)
PLAN_US, NEW_S, CACHED_MS, APPROXIMATE = 15.0, 10.0, 50.0, 1.3


def bars(results: Results) -> str:
    """A table of bar, measurement and whether it is met."""
    rows = [*_speedups(results), *_topk(results), *_once(results)]
    return table(
        ("what", "bar", "measured", "met"), ((*row, "yes" if met else "**no**") for *row, met in rows)
    )


Bar = tuple[str, str, str, bool]


def _speedups(results: Results) -> Iterator[Bar]:
    for what, model, flow, bar in SPEEDUPS:
        dense = results.best_dense(model, 32768, 16)
        sparse = results.find(model, 32768, 16, flow)
        if dense and sparse:
            ratio = dense.timing.us / sparse.timing.us
            measured = f"{ratio:.1f}x ({dense.timing.us:.0f} / {sparse.timing.us:.1f} us)"
            yield (
                what,
                f">= {bar:g}x",
                f"{measured}, {dense.timing.us / sparse.floor_us:.1f}x at the floor",
                ratio >= bar,
            )


def _topk(results: Results) -> Iterator[Bar]:
    """Exact selection against the others on the same scores; the approximate one against the exact one on
    every distribution."""
    for n in (2048, 8192):
        for k in (64, 256):
            found = {row.name: row for row in _rows(results, n, k) if row.scores == "normal, bf16"}
            ours = found.pop("ours, exact", None)
            rivals = [found[name] for name in ("torch.topk", "FlashInfer") if name in found]
            if ours and rivals:
                others = ", ".join(f"{row.name} {row.timing.us:.1f}" for row in rivals)
                fastest = min(row.timing.us for row in rivals)
                what = f"exact top-k, 128 x {n:,}, k {k}"
                yield what, f"< {others} us", f"{ours.timing.us:.1f} us", ours.timing.us < fastest
    gains = []
    for row in results.topk:
        if row.name.startswith("ours, approximate"):
            exact = [r for r in results.topk if r.name == "ours, exact" and _same(r, row)]
            gains += [(exact[0].timing.us / row.timing.us, row.recall)] if exact else []
    if gains:
        least, most, recall = min(gains)[0], max(gains)[0], min(recall for _, recall in gains)
        measured = f"{least:.2f}x to {most:.2f}x, recall at least {recall:.3f}"
        yield "approximate against exact top-k", f">= {APPROXIMATE}x at 0.97", measured, least >= APPROXIMATE


def _once(results: Results) -> Iterator[Bar]:
    plan = [row.timing.us for row in results.plan if row.batch == 256]
    if plan:
        yield "plan, batch 256, 32K", f"<= {PLAN_US:g} us", f"{max(plan):.1f} us", max(plan) <= PLAN_US
    if results.cold:
        new, kept = max(row.cold_ms for row in results.cold) / 1e3, max(row.cached_ms for row in results.cold)
        yield "a new candidate to its first step", f"<= {NEW_S:g} s", f"{new:.1f} s at most", new <= NEW_S
        yield "the same from the cache", f"<= {CACHED_MS:g} ms", f"{kept:.0f} ms at most", kept <= CACHED_MS


def _rows(results: Results, n: int, k: int) -> list[TopKRow]:
    return [row for row in results.topk if (row.rows, row.n, row.k) == (128, n, k)]


def _same(a: TopKRow, b: TopKRow) -> bool:
    return (a.rows, a.n, a.k, a.scores) == (b.rows, b.n, b.k, b.scores)
