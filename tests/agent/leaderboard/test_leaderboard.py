from __future__ import annotations

import csv
import io
import json

from typer.testing import CliRunner

from agent.leaderboard.__main__ import app
from agent.leaderboard.board import places
from agent.ledger import Ledger, Role


def run(ledger: Ledger, *arguments: str) -> str:
    told = CliRunner().invoke(app, ["--db", ledger.url, *arguments])
    assert told.exit_code == 0, told.output
    return told.stdout


def test_usable_candidates_come_first_by_bytes(finished: Ledger) -> None:
    found = places(finished, finished.runs())
    assert [place.rank for place in found] == list(range(1, len(found) + 1))
    usable = [place.row for place in found if place.row.meets_floor]
    assert found[: len(usable)] == [place for place in found if place.row.meets_floor]
    ratios = [row.heldout.bytes_ratio.mean for row in usable if row.heldout]
    assert ratios == sorted(ratios)
    assert usable[-1].role is Role.DENSE


def test_table_csv_and_json_show_the_same_rows(finished: Ledger) -> None:
    found = places(finished, finished.runs())
    table = run(finished)
    rows = list(csv.DictReader(io.StringIO(run(finished, "--csv", "-"))))
    documents = json.loads(run(finished, "--json"))
    hashes = [place.row.hash for place in found]
    assert [row["hash"] for row in rows] == hashes
    assert [document["row"]["hash"] for document in documents] == hashes
    assert all(key[:12] in table for key in hashes)
    assert float(rows[0]["heldout_accuracy"]) == documents[0]["row"]["heldout"]["accuracy"]["mean"]


def test_a_missing_ledger_is_said(tmp_path: object) -> None:
    told = CliRunner().invoke(app, ["--db", f"{tmp_path}/none.db"])
    assert told.exit_code == 1
    assert "run a search first" in told.output
