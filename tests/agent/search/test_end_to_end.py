"""The command as a user gives it, with the probe model, real prompts and Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.ledger import Ledger, Status
from agent.views.report import Report
from evaluators.executor import Journal
from evaluators.probe import PROBE_PATH

ROOT = Path(__file__).resolve().parents[3]
SMALL = [
    *("--length", "512", "--prompts-per-task", "2", "--heldout-per-task", "2", "--gate-per-task", "1"),
    *("--contenders", "0", "--tasks", "niah_single_1,vt"),
]


def test_a_search_from_the_command_line_and_its_continuation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    # A copy has no card: which tasks count is measured, so the length may be one that the card does not list.
    model = shutil.copytree(PROBE_PATH, tmp_path / "model")
    base = [
        sys.executable,
        "-m",
        "agent.search",
        "--runs-dir",
        str(tmp_path / "runs"),
        "--json",
        "--workers",
        "1",
    ]
    first = _run([*base, "--budget", "1", "--executor", "ray", "--model", str(model), *SMALL])
    report = Report.model_validate_json(first.stdout)
    assert report.tally.measured == 1
    assert report.labels["proposer"] == "evolution"
    assert "no OPENAI_API_KEY" in first.stderr
    assert Path(report.plot or "").read_bytes().startswith(b"\x89PNG")
    assert all(row.heldout for row in report.rows)

    second = _run([*base, "--resume", "--budget", "2", "--executor", "local"])
    assert json.loads(second.stdout)["run"] == report.run
    journal = Journal(tmp_path / "runs" / report.run / "journal.jsonl").read()
    jobs = [(entry.key, entry.split) for entry in journal if entry.event == "start"]
    assert len(jobs) == len(set(jobs))
    with Ledger(tmp_path / "runs" / "ledger.db") as ledger:
        rows = ledger.candidates(ledger.find_run(report.run).id, (Status.MEASURED,))
    workers = {found.worker_pid for row in rows for found in row.evaluations}
    assert workers <= {entry.pid for entry in journal}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr[-2000:]
    return told
