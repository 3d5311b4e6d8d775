"""A search on SGLang one of whose engines is killed while it measures a candidate."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from agent.ledger import Ledger
from agent.ledger.records import Tally
from evaluators.executor import Journal
from evaluators.measure.measurement import Measurement

SCHEDULER = "sglang::scheduler"
POLL_S = 0.02


class Killed(BaseModel):
    """What a search of `budget` candidates came to. victim: the candidate that was being measured when the
    scheduler `pid` got SIGKILL. repeated: every evaluation of the run that was begun more than once."""

    model_config = ConfigDict(frozen=True)

    budget: int
    seconds: float
    exit_status: int
    pid: int
    victim: str
    repeated: tuple[str, ...]
    tally: Tally
    places: tuple[str, ...]

    @property
    def row(self) -> tuple[str, ...]:
        return (
            str(self.budget),
            f"{self.seconds:.0f}",
            str(self.tally.measured),
            str(self.tally.failed),
            self.victim[:12],
            ", ".join(self.repeated),
            "; ".join(self.places),
        )


COLUMNS = ("budget", "seconds", "measured", "failed", "engine killed under", "begun twice", "measured on")


def search_with_a_kill(budget: int, after: int, runs: Path, options: list[str]) -> Killed:
    """`python -m agent.search --engine sglang`; when `after` proposed candidates are measured and the next
    one is being measured, its scheduler gets SIGKILL."""
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "agent.search", "--engine", "sglang", "--budget", str(budget)]
    command += ["--runs-dir", str(runs), *options]
    begin = time.perf_counter()
    driver = subprocess.Popen(command)
    try:
        victim, pid = _kill_one(driver, runs, after)
        status = driver.wait()
    finally:
        if driver.poll() is None:
            driver.terminate()
            driver.wait()
    return _outcome(runs, budget, time.perf_counter() - begin, status, victim, pid)


def _kill_one(driver: subprocess.Popen[bytes], runs: Path, after: int) -> tuple[str, int]:
    """The key of the job that was cut short, and the process that was killed."""
    while driver.poll() is None:
        time.sleep(POLL_S)
        journal = next(iter(runs.glob("*/journal.jsonl")), None)
        entries = Journal(journal).read() if journal else []
        done = {entry.key for entry in entries if entry.event == "finish" and entry.split == "search"}
        last = entries[-1] if entries else None
        if last is None or last.event != "start" or last.split == "heldout" or len(done) < after:
            continue
        for process in psutil.Process(driver.pid).children(recursive=True):
            if SCHEDULER in " ".join(process.cmdline()):
                process.kill()
                return last.key, process.pid
    raise RuntimeError(f"the search ended with status {driver.returncode} before anything was killed")


def _outcome(runs: Path, budget: int, seconds: float, status: int, victim: str, pid: int) -> Killed:
    with Ledger(runs / "ledger.db", create=False) as ledger:
        run = ledger.find_run("last")
        tally = ledger.tally(run.id)
        every = [(c, e) for c in ledger.candidates(run.id) for e in c.evaluations]
    found = [Measurement.model_validate_json(e.measurement) for _, e in every if e.measurement]
    return Killed(
        budget=budget,
        seconds=seconds,
        exit_status=status,
        pid=pid,
        victim=victim,
        repeated=tuple(f"{c.hash or c.name:.12} ({e.split})" for c, e in every if e.attempts > 1),
        tally=tally,
        places=tuple(sorted({f"{m.device}, {m.engine}" for m in found})),
    )
