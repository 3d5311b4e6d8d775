from __future__ import annotations

import csv
import io
import json

from rich.console import Console
from typer.testing import CliRunner

from agent.leaderboard.__main__ import app, board
from agent.leaderboard.board import Place, places
from agent.ledger import Ledger, Role
from tests.evaluators.serving.documents import WORK, decode, dense, sparse
from tests.evaluators.serving.documents import report as serving


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


def on_gpu(place: Place) -> Place:
    """The place as SGLang on a GPU would give it, timed."""
    timing = serving(dense(decode(15.0, tokens=32_000)), sparse(decode(7.5, tokens=32_000, work=WORK)))
    where = {"engine": "SGLang 0.5.16, flashinfer", "device": "NVIDIA H200", "speed": timing}
    return place.model_copy(update={"row": place.row.model_copy(update=where)})


def test_other_engines_and_devices_are_ranked_apart(finished: Ledger) -> None:
    found = places(finished, finished.runs())
    assert {place.row.ground for place in found} == {"none, instant"}
    laptop = found[0].row.model_copy(update={"engine": "hf-cpu", "device": "cpu"})
    assert laptop.ground == "CPU, transformers"
    mixed = found[:2] + [on_gpu(place) for place in found[:2]]
    assert len({place.ground for place in mixed}) == 2
    for width in (100, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(board(mixed))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        folded = " ".join(text.split())
        assert text.count("NVIDIA H200") == 2
        assert folded.count("none, instant") == 2
        assert text.count(" at ? tokens") == 2
        assert "Accuracies of different tables cannot be compared" in folded
        assert "step at 32,000 tokens: 2.00" in folded
    assert "cannot be compared" not in run(finished)


def test_the_timing_of_the_longest_prompts_is_in_the_csv(finished: Ledger) -> None:
    row = on_gpu(places(finished, finished.runs())[0]).flat()
    assert (row["engine"], row["device"]) == ("SGLang 0.5.16, flashinfer", "NVIDIA H200")
    assert (row["timed"], row["timed_tokens"], row["timed_ms"]) == ("step", 32_000, 7.5)
    assert (row["timed_dense_ms"], row["speedup"]) == (15.0, 2.0)


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
