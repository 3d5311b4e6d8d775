"""Kill -9 a search again and again, resume it each time, and look for losses: `python -m benchmarks.crash`.

Half of the kills hit the driver, half a worker. The workers' journal (fsynced, outside the ledger) says what
was really evaluated, the ledger what was committed. At the end of every run:
* nothing was started again after its result was committed,
* none of the budget is missing, and nothing is pending,
* the database is intact, and no worker outlived its driver.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import psutil
from sqlalchemy import create_engine, select

from agent.ledger import Ledger, RunStatus
from agent.ledger.models import Candidate, Evaluation
from agent.sandbox import Sandbox
from agent.search import interrupts
from agent.search.session import run_search
from agent.search.settings import SearchSettings
from benchmarks.instant import InstantProposer, InstantSettings, bench, journal_path, spec
from evaluators.executor import Journal, LocalExecutor

WORKER = "evaluators.executor.worker"
PRETENDED = InstantSettings(sleep_s=0.01)
EARLY = 0.2  # share of the driver kills at any time after its start, its imports included
GONE_S = 5.0  # within which the workers of a killed driver must be gone


@dataclass
class Tally:
    """What happened. `faults` is empty when the search keeps its promises."""

    driver_kills: int = 0
    worker_kills: int = 0
    resumes: int = 0
    runs: int = 0
    measured: int = 0
    restarted: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.driver_kills + self.worker_kills


def drive(folder: Path, budget: int) -> None:
    """One driver process: begins the run of this folder, or resumes it."""
    interrupts.install()
    ground = bench(PRETENDED)
    with Ledger(folder / "ledger.db") as ledger, Sandbox() as sandbox:
        if ledger.runs():
            run = ledger.find_run("last")
            ledger.take_over(run)
        else:
            settings = SearchSettings(budget=budget, workers=2).model_dump_json()
            run = ledger.create_run("crash", settings, ground.workload, ground.environment)
        settings = SearchSettings.model_validate_json(run.settings)
        with LocalExecutor(spec(PRETENDED), workers=2, journal=journal_path(folder)) as executor:
            run_search(ledger, run, settings, ground, InstantProposer(), sandbox, executor)


def torture(kills: int, budget: int, folder: Path, seed: int = 0) -> Tally:
    """Run searches until they have been killed so many times, and check each when it is finished."""
    rng, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        place = folder / f"run-{tally.runs}"
        place.mkdir()
        tally.runs += 1
        while tally.kills < kills and _one_kill(place, budget, rng, tally):
            pass
        _drive_to_the_end(place, budget, tally)
        _check(place, budget, tally)
    return tally


def _one_kill(place: Path, budget: int, rng: random.Random, tally: Tally) -> bool:
    """Start or resume the search and kill something in it. False when it was finished before that."""
    driver = _start(place, budget, tally)
    try:
        on_driver = tally.driver_kills <= tally.worker_kills
        if on_driver and rng.random() < EARLY:
            time.sleep(rng.uniform(0.0, 2.0))
        else:
            _wait_for_work(driver, place, rng.uniform(0.0, 1.0))
        workers = _workers(driver)
        if driver.poll() is not None or not (workers or on_driver):
            return False
        if on_driver:
            driver.kill()
            tally.driver_kills += 1
            driver.wait()
            _expect_gone(workers, tally)
            return True
        rng.choice(workers).kill()
        tally.worker_kills += 1
        time.sleep(rng.uniform(0.0, 0.5))
        driver.send_signal(
            signal.SIGINT
        )  # the driver lives on; stop it, so that this kill too is resumed from
        driver.wait(timeout=60)
        _expect_gone(workers, tally)
        return _unfinished(place)
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()


def _start(place: Path, budget: int, tally: Tally) -> subprocess.Popen[bytes]:
    tally.resumes += (place / "ledger.db").exists()
    log = (place / "driver.log").open("ab")
    with log:
        command = [sys.executable, "-m", "benchmarks.crash", "--drive", str(place), "--budget", str(budget)]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).resolve().parents[1])


def _wait_for_work(driver: subprocess.Popen[bytes], place: Path, then: float) -> None:
    """Until the journal grows, and a moment longer."""
    journal = journal_path(place)
    before = journal.stat().st_size if journal.exists() else 0
    while driver.poll() is None and (not journal.exists() or journal.stat().st_size == before):
        time.sleep(0.01)
    time.sleep(then)


def _drive_to_the_end(place: Path, budget: int, tally: Tally) -> None:
    while _unfinished(place):
        driver = _start(place, budget, tally)
        if driver.wait(timeout=600) != 0:
            tally.faults.append(
                f"{place.name}: the driver failed: {(place / 'driver.log').read_text()[-800:]}"
            )
            return


def _unfinished(place: Path) -> bool:
    with Ledger(place / "ledger.db") as ledger:
        runs = ledger.runs()
        return not runs or runs[-1].status is not RunStatus.FINISHED


def _check(place: Path, budget: int, tally: Tally) -> None:
    with Ledger(place / "ledger.db") as ledger:
        found = ledger.tally(ledger.find_run("last").id)
    tally.measured += found.measured
    if found.measured != budget or found.pending:
        tally.faults.append(f"{place.name}: {found} instead of {budget} measured and none pending")
    engine = create_engine(f"sqlite:///{place / 'ledger.db'}")
    with engine.connect() as connection:
        state = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if state != "ok" or broken:
            tally.faults.append(f"{place.name}: the database is damaged: {state}, {broken}")
        columns = select(Candidate.hash, Evaluation.split, Evaluation.created_at)
        rows = connection.execute(columns.join(Evaluation).where(Evaluation.status == "done"))
        committed = {(row.hash, row.split): _seconds(row.created_at) for row in rows}
    begun: set[tuple[str, str]] = set()
    for entry in Journal(journal_path(place)).read():
        job = (entry.key, entry.split)
        if entry.event != "start":
            continue
        tally.restarted += job in begun
        begun.add(job)
        if job in committed and entry.time > committed[job]:
            tally.faults.append(f"{place.name}: {job} was started again after its result was committed")
    missing = begun ^ committed.keys()
    if missing:
        tally.faults.append(f"{place.name}: started but not committed, or the other way round: {missing}")


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


def _workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if WORKER in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _expect_gone(workers: list[psutil.Process], tally: Tally) -> None:
    _, alive = psutil.wait_procs(workers, timeout=GONE_S)
    if alive:
        tally.faults.append(f"{len(alive)} workers outlived their driver by {GONE_S:g} s")


def _report(tally: Tally, seconds: float) -> Iterator[str]:
    yield (
        f"{date.today()}: {tally.driver_kills} kills of the driver and {tally.worker_kills} of a worker in "
        f"{tally.runs} runs, {tally.resumes} resumes, {seconds:.0f} s, {tally.measured} candidates measured."
    )
    yield f"{tally.restarted} evaluations that were in flight at a kill began again."
    yield from tally.faults or ["No committed result was measured again, none of the budget is missing."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--budget", type=int, default=250, help="candidates of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.drive:
        drive(chosen.drive, chosen.budget)
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = torture(chosen.kills, chosen.budget, Path(folder), chosen.seed)
    print("\n".join(_report(tally, time.monotonic() - begin)))
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
