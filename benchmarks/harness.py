"""What the search itself costs per candidate: `python -m benchmarks.harness`.

A proposer that proposes at once and an evaluator that does nothing go through everything else that a real
search goes through: sandbox, type check, hashes, Optuna, worker processes, two measurements, the ledger. Only
the workers' fsynced journal is off. Prints a table by tenth of the run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil

from agent.ledger import Ledger
from agent.sandbox import Sandbox
from agent.search.progress import Progress
from agent.search.session import run_search
from agent.search.settings import SearchSettings
from benchmarks.instant import InstantProposer, InstantSettings, bench, spec
from evaluators.executor import Executor, LocalExecutor, RayExecutor
from evaluators.measure.environment import current_environment


@dataclass
class Clock:
    """A view that notes when each candidate was measured, and what the driver and its ledger weighed then."""

    ledger: Path
    every: int
    times: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    disk: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def start(self, progress: Progress) -> None: ...

    def update(self, progress: Progress) -> None:
        now = time.perf_counter()
        while progress.stage == "searching" and len(self.times) < progress.measured:
            self.times.append(now)
            if len(self.times) % self.every == 0:
                self.cpu.append(time.process_time())
                self.memory.append(psutil.Process().memory_info().rss)
                self.disk.append(sum(file.stat().st_size for file in self.ledger.parent.glob("ledger.db*")))

    def notice(self, text: str) -> None:
        print(text)

    def stop(self) -> None: ...


def measure(candidates: int, workers: int, executor: str, folder: Path) -> Clock:
    """Search until so many candidates are measured."""
    pretended = InstantSettings()
    ground = bench(pretended)
    settings = SearchSettings(budget=candidates, workers=workers, max_proposals=20 * candidates)
    clock = Clock(folder / "ledger.db", max(1, candidates // 10))
    kind = RayExecutor if executor == "ray" else LocalExecutor
    placed: Executor = kind(spec(pretended), workers=workers)
    with Ledger(clock.ledger) as ledger, Sandbox() as sandbox, placed as placed:
        run = ledger.create_run("harness", settings.model_dump_json(), ground.workload, ground.environment)
        run_search(ledger, run, settings, ground, InstantProposer(), sandbox, placed, clock)
        print(f"isolation: {sandbox.isolation}; {ledger.tally(run.id)}")
    return clock


def table(clock: Clock, executor: str) -> str:
    """The run by tenths, as markdown."""
    gaps = [1e3 * (b - a) for a, b in zip(clock.times, clock.times[1:], strict=False)]
    machine = current_environment()
    lines = [
        f"{date.today()}, {machine.cores} cores ({machine.cpu}), Python {platform.python_version()}, "
        f"{executor} executor: **median {statistics.median(gaps):.1f} ms per candidate**, "
        f"mean {statistics.mean(gaps):.1f} ms.",
        "",
        "| candidates | median ms | mean ms | 90% ms | driver CPU ms | driver MiB | ledger MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for tenth, (memory, disk) in enumerate(zip(clock.memory, clock.disk, strict=True)):
        first, last = tenth * clock.every, (tenth + 1) * clock.every
        part, mib = gaps[first:last], 2**20
        cpu = f"{1e3 * (clock.cpu[tenth] - clock.cpu[tenth - 1]) / clock.every:.1f}" if tenth else "-"
        lines.append(
            f"| {first + 1}-{last} | {statistics.median(part):.1f} | {statistics.mean(part):.1f} | "
            f"{statistics.quantiles(part, n=10)[-1]:.1f} | {cpu} | {memory / mib:.0f} | {disk / mib:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = measure(chosen.candidates, chosen.workers, chosen.executor, Path(folder))
    print(table(clock, chosen.executor))


if __name__ == "__main__":
    main()
