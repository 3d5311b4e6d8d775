"""The README of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping

from agent.export.report import CONFIG, FLOW, GRAPH, LAUNCH, REPORT, ExportReport, Result


def readme(report: ExportReport, config: Mapping[str, object], engine: Mapping[str, object]) -> str:
    """What the folder is, what was measured, and how to use and check it. `engine`: SGLang's arguments."""
    measured = report.result.measurement
    level = 100 * report.result.accuracy.level
    lines = [
        f"# {report.name}",
        "",
        "A sparse-attention algorithm for decoding, found by search and measured on long-context retrieval",
        "(RULER).",
        f"Chosen because: {report.chosen}.",
        "",
        f"| split | accuracy [{level:g}% interval] | against dense, paired | bytes / dense |",
        "|---|---|---|---|",
        _row(report.result),
    ]
    if report.search is not None and report.search.measurement.split != measured.split:
        lines.append(_row(report.search))
    tasks = ", ".join(measured.tasks_counted)
    lines += [
        "",
        f"Model: {measured.model}; {len(measured.samples)} prompts of {measured.length:,} tokens: {tasks}.",
        f"Engine: {measured.engine} on {measured.device}.",
    ]
    if measured.tasks_excluded:
        excluded = ", ".join(task.task for task in measured.tasks_excluded)
        lines.append(f"Not counted, because dense attention itself fails them: {excluded}.")
    if report.hypothesis:
        lines.append(f"Hypothesis of its proposer ({report.proposer}): {report.hypothesis}")
    lines += [
        "",
        "## Serve",
        "",
        "With SGLang 0.5.16 and Vortex installed; by its path, the script runs from any working directory:",
        "",
        "```",
        f"./{LAUNCH} MODEL [TP] [server options ...]      # OpenAI-compatible API on 127.0.0.1:30000",
        "```",
        "",
        f"`{LAUNCH}` says which options it sets and how to change them. Without a server:",
        "",
        "```python",
        "import sglang as sgl",
        "from vortex_torch.engine.sgl.config import VortexConfig",
        "",
        f'config = VortexConfig.from_file("{CONFIG}")',
        "engine = sgl.Engine(",
        '    model_path="path/of/a/model",',
        *(f"    {name}={value!r},".replace("'", '"') for name, value in engine.items()),
        "    vortex=config,",
        ")",
        "```",
        "",
        "## Use without a GPU",
        "",
        "From this folder, on a decoder of transformers:",
        "",
        "```python",
        "from vortex.config import VortexConfig",
        "from vortex.engine.hf.engine import Engine",
        "",
        f'config = VortexConfig.from_file("{CONFIG}")',
        'engine = Engine("path/of/a/model", flow=config.load_graph(), config=config)',
        'print(engine.generate(["..."], max_new_tokens=32))',
        "```",
        "",
        "## Check",
        "",
        "`python -m agent.export --verify <this folder>` traces the flow afresh, compares hashes,",
        "and measures again: with `--engine sglang` in SGLang. `--serve` also starts the launch script and",
        "sends it a request.",
        "",
        "## Files",
        "",
        f"* `{FLOW}`: the flow, registered as `{report.name}`, to read.",
        f"* `{GRAPH}`: the same as data, which is what runs; hash `{report.graph_hash}`.",
        f"* `{CONFIG}`: block size {config['block_size']}, topk_val {config['topk_val']}, and the rest.",
        f"* `{LAUNCH}`: starts a server with them.",
        f"* `{REPORT}`: measurements with every sample, environment, ledger id {report.origin.candidate} "
        f"of run {report.origin.run}; candidate hash `{report.hash}`.",
        "",
    ]
    return "\n".join(lines)


def _row(result: Result) -> str:
    accuracy, difference = result.accuracy, result.difference_to_dense
    against = "-"
    if difference is not None:
        against = (
            f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}] points"
        )
    return (
        f"| {result.measurement.split} | {100 * accuracy.mean:.1f}% [{100 * accuracy.low:.1f}, "
        f"{100 * accuracy.high:.1f}] | {against} | {100 * result.bytes_ratio:.1f}% |"
    )
