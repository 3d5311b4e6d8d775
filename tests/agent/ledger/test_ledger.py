from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from agent.ledger import (
    CallRecord,
    Entry,
    EvaluationRecord,
    Ledger,
    LedgerError,
    ProposalRecord,
    Role,
    RunRecord,
    RunStatus,
    Spend,
    Status,
)

FACTS = {"python": "3.11", "cores": 2}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "sub" / "ledger.db")


@pytest.fixture
def run(ledger: Ledger) -> RunRecord:
    return ledger.create_run("first", '{"budget": 3}', "prompts-1", FACTS, {"model": "probe"})


def proposal(name: str = "flow", **more: object) -> ProposalRecord:
    return ProposalRecord.model_validate({"name": name, "proposer": "evolution", "source": "x = 1"} | more)


def entry(key: str) -> Entry:
    return Entry(hash=key, graph_hash=f"graph-{key}", graph="{}")


def done(split: str = "search", **more: object) -> EvaluationRecord:
    values = {"accuracy": 0.5, "bytes_per_step": 10.0, "dense_bytes_per_step": 40.0, "measurement": "{}"}
    base = {"split": split, "workload": "prompts-1", "status": "done", "worker_pid": 7}
    return EvaluationRecord.model_validate(base | values | more)


def test_a_candidate_from_acceptance_to_measurement(ledger: Ledger, run: RunRecord) -> None:
    first = ledger.accept(run.id, proposal("parent"), entry("a"))
    second = ledger.accept(run.id, proposal("child", parents=("a", "unknown")), entry("b"))
    assert ledger.known(run.id, "b") == second
    assert ledger.known(run.id, "c") is None
    assert ledger.hashes(run.id) == {"a", "b"}
    ledger.record(second, done("gate"), environment=FACTS)
    assert [row.id for row in ledger.pending(run.id)] == [first, second]
    ledger.record(second, done("search", accuracy=0.75), Status.MEASURED, environment=FACTS)
    row = ledger.candidate(second)
    assert row.status is Status.MEASURED
    assert row.parents == ("a",)
    found = row.evaluation("search")
    assert found is not None
    assert (found.accuracy, found.worker_pid) == (0.75, 7)
    assert [row.id for row in ledger.pending(run.id)] == [first]


def test_every_proposal_is_kept(ledger: Ledger, run: RunRecord) -> None:
    original = ledger.accept(run.id, proposal("one"), entry("a"))
    ledger.duplicate(run.id, proposal("the same under another name"), entry("a"), original)
    ledger.reject(run.id, proposal("broken"), "GeMM: last dimension mismatch")
    ledger.reject(run.id, proposal("broken"), "GeMM: last dimension mismatch")
    ledger.accept(
        run.id, proposal("dense", role=Role.DENSE), Entry(hash="dense", graph_hash=None, graph=None)
    )
    tally = ledger.tally(run.id)
    assert (tally.pending, tally.duplicate, tally.rejected, tally.proposals) == (1, 1, 2, 4)
    rows = ledger.candidates(run.id)
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert rows[2].reason == "GeMM: last dimension mismatch"
    assert [row.id for row in ledger.candidates(run.id, latest=2)] == [rows[3].id, rows[4].id]


def test_a_hash_has_one_owner_in_a_run(ledger: Ledger, run: RunRecord) -> None:
    ledger.accept(run.id, proposal(), entry("a"))
    with pytest.raises(LedgerError, match="already has this candidate"):
        ledger.accept(run.id, proposal(), entry("a"))
    assert ledger.tally(run.id).proposals == 1
    other = ledger.create_run("second", "{}", "prompts-1", FACTS)
    assert ledger.known(other.id, "a") is None
    ledger.accept(other.id, proposal(), entry("a"))


def test_a_failed_evaluation_may_be_repeated_a_completed_one_not(ledger: Ledger, run: RunRecord) -> None:
    row = ledger.accept(run.id, proposal(), entry("a"))
    failed = EvaluationRecord(split="search", workload="w", status="failed", reason="killed")
    ledger.record(row, failed, Status.FAILED, "killed")
    ledger.record(row, done(), Status.MEASURED)
    with pytest.raises(LedgerError):
        ledger.record(row, done())
    assert [e.status for e in ledger.candidate(row).evaluations] == ["done"]


def test_a_status_and_its_evaluation_are_one_transaction(ledger: Ledger, run: RunRecord) -> None:
    row = ledger.accept(run.id, proposal(), entry("a"))
    with pytest.raises(LedgerError):
        ledger.record(row, done(reused_from=999), Status.MEASURED)  # the foreign key does not exist
    assert ledger.candidate(row).status is Status.PENDING
    assert ledger.candidate(row).evaluations == ()


def test_evaluations_are_reused_only_on_equal_ground(ledger: Ledger, run: RunRecord) -> None:
    row = ledger.accept(run.id, proposal(), entry("a"))
    ledger.record(row, done("gate"), environment=FACTS)
    ledger.record(row, done(accuracy=0.9), Status.MEASURED, environment=FACTS)
    found = ledger.reusable("a", "search", "prompts-1", FACTS)
    assert found is not None
    assert found[1].accuracy == 0.9
    assert ledger.reusable("b", "search", "prompts-1", FACTS) is None
    assert ledger.reusable("a", "heldout", "prompts-1", FACTS) is None
    assert ledger.reusable("a", "search", "prompts-2", FACTS) is None
    assert ledger.reusable("a", "search", "prompts-1", FACTS | {"cores": 4}) is None


def test_llm_calls_add_up(ledger: Ledger, run: RunRecord) -> None:
    row = ledger.reject(run.id, proposal(), "no flow in the answer")
    call = CallRecord(
        model="m",
        purpose="propose",
        status="ok",
        prompt="p",
        answer="a",
        prompt_tokens=10,
        completion_tokens=5,
    )
    ledger.record_calls(run.id, row, [call, call.model_copy(update={"cost": 0.25})])
    assert ledger.spend(run.id) == Spend(
        calls=2, prompt_tokens=20, completion_tokens=10, cost=0.25, unpriced=1
    )


def test_runs_are_found_by_name_number_and_last(ledger: Ledger, run: RunRecord) -> None:
    second = ledger.create_run("second", "{}", "w", FACTS)
    assert ledger.find_run("last").id == second.id
    assert ledger.find_run("first").id == ledger.find_run("1").id == run.id
    with pytest.raises(LedgerError, match="nearest is 'second'"):
        ledger.find_run("secnd")
    ledger.end_run(run.id, RunStatus.FINISHED, 2.5)
    assert ledger.run(run.id).status is RunStatus.FINISHED
    assert ledger.run(run.id).seconds == 2.5
    assert ledger.environment(run.environment_id) == FACTS


def test_a_run_with_a_live_driver_is_not_taken_over(tmp_path: Path, ledger: Ledger) -> None:
    path = tmp_path / "sub" / "ledger.db"
    code = (
        "import sys; from agent.ledger import Ledger\n"
        f"Ledger({str(path)!r}).create_run('theirs', '{{}}', 'w', {{}})\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        run = ledger.find_run("theirs")
        with pytest.raises(LedgerError, match=f"driven by process {other.pid}"):
            ledger.take_over(run)
        other.kill()
    ledger.take_over(run)
    assert ledger.run(run.id).status is RunStatus.RUNNING


def test_sqlite_is_opened_with_wal_and_foreign_keys(tmp_path: Path, ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys")
        ]
        timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert values == ["wal", 1]
    assert timeout == 30_000


def test_two_processes_write_one_ledger(tmp_path: Path, ledger: Ledger) -> None:
    code = (
        "import sys; from agent.ledger import *\n"
        f"ledger = Ledger({str(tmp_path / 'sub' / 'ledger.db')!r})\n"
        "run = ledger.create_run(sys.argv[1], '{}', 'w', {})\n"
        "for i in range(40):\n"
        "    ledger.accept(run.id, ProposalRecord(name='n', proposer='p'),"
        " Entry(hash=f'{i}', graph_hash=None, graph=None))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    both = [subprocess.Popen([sys.executable, "-c", code, name], env=environment) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert [ledger.tally(ledger.find_run(name).id).pending for name in ("one", "two")] == [40, 40]


def test_a_full_disk_is_said_and_nothing_is_half_written(ledger: Ledger, run: RunRecord) -> None:
    row = ledger.accept(run.id, proposal(), entry("a"))
    with ledger._engine.connect() as connection:  # the pool hands out this one connection again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match=r"disk is full.*--resume"):
        ledger.record(row, done(measurement="x" * 200_000), Status.MEASURED)
    assert ledger.candidate(row).status is Status.PENDING


def test_a_read_only_ledger_is_read_but_not_written(tmp_path: Path, ledger: Ledger, run: RunRecord) -> None:
    url = f"sqlite:///file:{tmp_path / 'sub' / 'ledger.db'}?mode=ro&uri=true"
    reader = Ledger(url, create=False)
    assert reader.find_run("last").name == "first"
    with pytest.raises(LedgerError, match="read-only"):
        reader.accept(run.id, proposal(), entry("a"))
    with pytest.raises(LedgerError, match="read-only"):
        reader.create_run("second", "{}", "w", {})


def test_bad_databases_are_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="run a search first"):
        Ledger(tmp_path / "none.db", create=False)
    with pytest.raises(LedgerError, match="cannot be made"):
        Ledger("/proc/nowhere/ledger.db")
    with pytest.raises(LedgerError, match="not a database this installation can open"):
        Ledger("nosuch://host/name")
    (tmp_path / "text.db").write_text("this is not a database, it is a text file\n" * 100)
    with pytest.raises(LedgerError, match="not a SQLite database"):
        Ledger(tmp_path / "text.db")


def test_a_newer_schema_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    ledger.close()
    path = tmp_path / "sub" / "ledger.db"
    with create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match="newer than this version's"):
        Ledger(path)


def test_opening_an_up_to_date_ledger_does_not_import_alembic(tmp_path: Path, ledger: Ledger) -> None:
    code = (
        "import sys; from agent.ledger import Ledger\n"
        f"Ledger({str(tmp_path / 'sub' / 'ledger.db')!r}).runs()\n"
        "assert 'alembic' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
