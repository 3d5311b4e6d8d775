from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from agent.ledger import Ledger, Role
from agent.sandbox import Sandbox
from agent.search.contenders import time_contenders
from agent.search.progress import Silent
from agent.search.settings import SearchSettings
from agent.views.plot import save_plot
from agent.views.report import Report, build_report
from agent.views.speed import speed_lines, timings
from agent.views.table import result
from benchmarks.instant import InstantProposer, InstantSettings, bench
from evaluators.measure import current_environment
from evaluators.measure.speed import SpeedColumn, SpeedReport, Spread
from search_spaces.candidate import Candidate
from tests.agent.search.parts import search
from tests.evaluators.serving.documents import WORK, decode, dense, sparse
from tests.evaluators.serving.documents import report as serving


def text_of(report: Report, width: int) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(result(report))
    return console.export_text()


def test_the_report_has_the_references_and_the_front_with_both_splits(
    report: Report, finished: Ledger
) -> None:
    assert report.rows[0].role is Role.DENSE
    assert [row.search.bytes_per_step for row in report.front] == sorted(
        row.search.bytes_per_step for row in report.front
    )
    assert len(report.measured) == 12
    assert report.tally.measured == 12
    for row in report.rows:
        assert row.heldout is not None
        assert (row.search.prompts, row.heldout.prompts) == (48, 48)
        assert row.search.accuracy.low <= row.search.accuracy.mean <= row.search.accuracy.high
    assert report.rows[0].search.bytes_ratio.mean == 1.0


def test_without_a_win_the_verdict_says_why(report: Report) -> None:
    assert report.winners == ()
    for row in report.front:
        assert row.verdict.startswith("no win: ")
    assert "No candidate is shown to beat a reference" in text_of(report, 120)


def test_a_win_is_named(tmp_path: Path) -> None:
    # As accurate as dense on every prompt, at a third of the bytes.
    with Ledger(tmp_path / "ledger.db") as ledger, Sandbox() as sandbox:
        settings = SearchSettings(budget=2, workers=1)
        ideal = InstantSettings(prompts_per_task=12, quality=1.0, ratio=0.3)
        run = search(ledger, sandbox, InstantProposer(), settings, ideal)
        report = build_report(ledger, run, settings.model_dump())
    (winner,) = report.winners
    assert winner.wins == ("dense",)
    assert winner.verdict == "cheaper than dense"
    assert winner.new_graph
    assert "1 candidate(s) beat a reference" in text_of(report, 120)


@pytest.mark.parametrize("chance", [1.0, 0.9])
def test_what_costs_what_dense_costs_is_no_win(tmp_path: Path, chance: float) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, Sandbox() as sandbox:
        settings = SearchSettings(budget=6, workers=2)
        cheat = InstantSettings(prompts_per_task=8, quality=chance, ratio=1.0)
        run = search(ledger, sandbox, InstantProposer(), settings, cheat)
        report = build_report(ledger, run, settings.model_dump())
    assert report.rows[0].role is Role.DENSE
    assert report.front == ()  # dense has their bytes and at least their accuracy: it stands, they do not
    assert report.winners == ()


def test_contenders_are_timed_once_and_shown(tmp_path: Path) -> None:
    spread = Spread(median=1.5, low=1.4, high=1.6)
    column = SpeedColumn(
        length=2048,
        batch=1,
        layers=4,
        heads=2,
        group=4,
        head_dim=64,
        kv="prompts",
        accuracy_measured=True,
        dense_kernel="sdpa",
        sparse_ms=spread,
        dense_ms=spread,
        ratio=spread,
    )
    timed: list[Candidate] = []

    def stopwatch(candidate: Candidate) -> str:
        timed.append(candidate)
        return SpeedReport(
            columns=(column,), threads=1, alone=True, other_cores_busy=0.0, environment=current_environment()
        ).model_dump_json()

    with Ledger(tmp_path / "ledger.db") as ledger, Sandbox() as sandbox:
        settings = SearchSettings(budget=2, workers=1)
        ideal = InstantSettings(prompts_per_task=12, quality=1.0, ratio=0.3)
        run = search(ledger, sandbox, InstantProposer(), settings, ideal)
        ground = replace(bench(ideal), time=stopwatch)
        for _ in range(2):
            report = build_report(ledger, run, settings.model_dump())
            time_contenders(ledger, ground, report, 2, Silent())
    (winner,) = report.winners
    assert [candidate.hash for candidate in timed] == [winner.hash]
    assert winner.speed is not None
    assert "2048 tokens is 1.50 [1.40-1.60] times as fast as dense (sdpa)" in text_of(report, 200)


def test_a_timing_of_the_serving_engine_says_what_it_is_of(tmp_path: Path) -> None:
    quick, slow = (decode(step, tokens=tokens, work=WORK) for step, tokens in ((5.0, 2048), (12.0, 32_000)))
    timing = serving(dense(decode(10.0), decode(30.0, tokens=32_000)), sparse(quick, slow))
    with Ledger(tmp_path / "ledger.db") as ledger, Sandbox() as sandbox:
        settings = SearchSettings(budget=2, workers=1)
        ideal = InstantSettings(prompts_per_task=12, quality=1.0, ratio=0.3)
        run = search(ledger, sandbox, InstantProposer(), settings, ideal)
        ground = replace(bench(ideal), time=lambda candidate: timing.model_dump_json())
        time_contenders(ledger, ground, build_report(ledger, run, settings.model_dump()), 2, Silent())
        report = build_report(ledger, run, settings.model_dump(mode="json"))
    report = report.model_copy(update={"labels": {"length": "2048"}})
    (winner,) = report.winners
    assert winner.speed == timing
    assert [(timed.what, timed.tokens, timed.ratio.median) for timed in timings(winner.speed)] == [
        ("step", 2048, 2.0),
        ("step", 32_000, 2.5),
    ]
    at_2k, at_32k = list(speed_lines(winner, "2048"))
    for part in (
        "16 x 2048 tokens takes 5.00 [5.00-5.00] ms (flashinfer, no CUDA graphs)",
        "dense 10.00 [10.00-10.00] ms (flashinfer, CUDA graphs): 2.00 [2.00-2.00] times as fast",
        "blocks read: 5.0%; NVIDIA H200, SGLang 0.5.16",
    ):
        assert part in at_2k
        assert part.split(";")[0] in text_of(report, 400)
    assert "accuracy was not measured" not in at_2k
    assert at_32k.endswith("accuracy was not measured at this length")
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_the_table_fits_a_narrow_terminal_and_is_labelled(report: Report) -> None:
    for width in (80, 140):
        text = text_of(report, width)
        assert max(map(len, text.splitlines())) <= width
        for row in report.rows:
            assert f"{100 * row.search.accuracy.mean:.1f}%" in text
            assert row.role is Role.DENSE or row.hash[:12] in text
            assert row.ground == "none, instant"
        assert "on none, instant" in text
        for label in ("tasks counted: niah_single_1", "12 measured", "held-out", report.ledger[-20:]):
            assert label in text.replace("\n", "")


def test_the_report_is_one_json_document(report: Report) -> None:
    document = json.loads(report.model_dump_json())
    assert document["format"] == 1
    assert Report.model_validate(document) == report


def test_the_plot_is_a_png(report: Report, tmp_path: Path) -> None:
    path = save_plot(report, tmp_path / "run" / "pareto.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.stat().st_size > 10_000
