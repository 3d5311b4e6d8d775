"""Time of one layer against context: dense attention, the flows, and their floors."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernels.cases import BATCHES, CONTEXTS, FLOWS, QWEN3_8B
from benchmarks.kernels.results import Results

COLOURS = {"dense": "#333333", "centroid": "#1f77b4", "Quest": "#d62728"}


def draw(results: Results, path: Path) -> None:
    """One panel a batch; dashed: bytes over the bandwidth of a device copy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(BATCHES), figsize=(4 * len(BATCHES), 4), sharey=True, sharex=True)
    for batch, panel in zip(BATCHES, panels, strict=True):
        lines: dict[str, list[tuple[int, float, float]]] = {name: [] for name in COLOURS}
        for context in sorted({row.context for row in results.dense if row.model == QWEN3_8B.name}):
            dense = results.best_dense(QWEN3_8B.name, context, batch)
            if dense:
                lines["dense"].append((context, dense.timing.us, dense.floor_us))
            for name, flow in FLOWS.items():
                row = results.find(QWEN3_8B.name, context, batch, flow)
                if row:
                    lines[name].append((context, row.timing.us, row.floor_us))
        for name, points in lines.items():
            if points:
                contexts, times, floors = zip(*points, strict=True)
                panel.plot(contexts, times, "o-", color=COLOURS[name], label=name)
                panel.plot(contexts, floors, "--", color=COLOURS[name], label=f"{name}, floor", linewidth=1)
        panel.set(title=f"batch {batch}", xlabel="context, tokens", xscale="log", yscale="log")
        panel.set_xticks(CONTEXTS, [f"{context // 1024}K" for context in CONTEXTS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("one layer, microseconds")
    panels[0].legend(fontsize=8)
    figure.suptitle(
        f"{QWEN3_8B.name} attention, block 16, 64 blocks, bfloat16, {', '.join(results.environment.gpus)}"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
