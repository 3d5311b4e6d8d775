"""`python -m benchmarks.kernels`, or `python benchmarks/kernels.py`: measures on this machine's GPU and
prints the tables; needs FlashInfer and sgl_kernel for the baselines.

`--read FILE...` measures nothing: it prints the tables of earlier runs together, and draws the plot.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.kernels.results import Results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sections", default="", help="comma-separated; default: all")
    parser.add_argument("--out", type=Path, default=Path("runs/kernels"), help="folder of what is written")
    parser.add_argument("--read", type=Path, nargs="+", default=[])
    chosen = parser.parse_args()
    if chosen.read:
        from benchmarks.kernels.results import merged

        results = merged([json.loads(path.read_text(encoding="utf-8")) for path in chosen.read])
    else:
        results = _measure(chosen.sections.split(",") if chosen.sections else [], chosen.out)
    results.write(chosen.out / "kernels.json")
    from benchmarks.kernels.plot import draw
    from benchmarks.kernels.report import tables

    text = tables(results)
    (chosen.out / "tables.md").write_text(text, encoding="utf-8")
    draw(results, chosen.out / "kernels.png")
    print(text)
    if results.failed:
        sys.exit(f"{len(results.failed)} measurements failed")


def _measure(wanted: list[str], out: Path) -> Results:
    from benchmarks.kernels.measure import SECTIONS
    from benchmarks.kernels.results import Results
    from benchmarks.kernels.timing import copy_bandwidth
    from evaluators.measure.environment import current_environment
    from vortex.errors import unknown

    for name in wanted:
        if name not in SECTIONS:
            sys.exit(unknown("section", name, list(SECTIONS)))
    results = Results(
        day=date.today(),
        commit=_commit(),
        environment=current_environment(),
        copy_gb_s=copy_bandwidth() / 1e9,
    )
    for name in wanted or SECTIONS:
        start = time.perf_counter()
        SECTIONS[name](results)
        results.write(out / "kernels.json")
        print(f"-- {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return results


def _commit() -> str:
    """The commit that is checked out; where git is not there, what the environment says of it."""
    import os

    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT", "unknown")
    return found.stdout.strip()


if __name__ == "__main__":
    main()
