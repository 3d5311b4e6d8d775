from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.export.choose import choose
from agent.export.command import app
from agent.export.folder import export
from agent.export.report import CONFIG, FILES, FLOW, GRAPH, README, REPORT, ExportError, read_report
from agent.export.verify import verify
from tests.agent.export.conftest import Finished
from vortex.config import VortexConfig
from vortex.graph.model import FlowGraph


def taken(finished: Finished, to: Path, wanted: str = "best", force: bool = False) -> Path:
    chosen = choose(finished.ledger, finished.run, wanted, floor=0.05)
    export(finished.ledger, finished.run, chosen, to, force)
    return to


def edited(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_the_folder_holds_everything(finished: Finished, tmp_path: Path) -> None:
    candidate = finished.candidates["quest it is!"]
    folder = taken(finished, tmp_path / "deep" / "winner", candidate.hash[:10])
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["winner"]
    report = read_report(folder)
    assert (report.hash, report.graph_hash) == (candidate.hash, candidate.graph.hash)
    assert report.name == f"quest_it_is_{candidate.hash[:8]}"
    assert report.knobs == candidate.knobs
    assert report.result.measurement == finished.measured["quest it is!"]
    assert report.search is not None
    assert report.search.measurement.split == "search"
    assert report.origin.run == "tried"
    assert report.environment["python"]
    assert FlowGraph.from_json((folder / GRAPH).read_text()).hash == candidate.graph.hash
    values = json.loads((folder / CONFIG).read_text())
    assert values["module_path"] == GRAPH  # data: nothing of a candidate runs in production
    assert set(values) == set(VortexConfig.model_fields)
    readme = (folder / README).read_text()
    assert report.name in readme
    assert "held-out" in readme or "heldout" in readme


def test_the_folder_loads_where_it_lies(finished: Finished, tmp_path: Path) -> None:
    candidate = finished.candidates["quest it is!"]
    folder = taken(finished, tmp_path / "winner", candidate.hash)
    config = VortexConfig.from_file(folder / CONFIG)
    assert config.load_graph().hash == candidate.graph.hash
    assert config.block_size == 16


def test_verify_holds(finished: Finished, tmp_path: Path) -> None:
    folder = taken(finished, tmp_path / "winner")
    verdict = verify(folder, finished.cache)
    assert verdict.holds, verdict.problems
    assert verdict.notes == ()
    assert verdict.accuracy == pytest.approx(verdict.recorded[0])
    assert verdict.bytes_ratio == pytest.approx(read_report(folder).result.bytes_ratio)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        (FLOW, ("CMean(dim=1)", "CMax(dim=1)"), "flow.py traces to graph"),
        (FLOW, ("def create_cache", "import os\n\n    def create_cache"), "flow.py is refused"),
        (FLOW, ('@register("', '@register("other_'), "does not register"),
        (CONFIG, ('"topk_val": 2', '"topk_val": 3'), "does not hold the knobs"),
        (REPORT, ('"topk_val": 2', '"topk_val": 3'), "the candidate's hash is"),
    ],
)
def test_tampering_is_told(
    finished: Finished, tmp_path: Path, file: str, change: tuple[str, str], says: str
) -> None:
    folder = taken(finished, tmp_path / "winner", finished.candidates["small"].hash)
    changes = [change]
    if "CMax" in change[1]:
        changes.append(("Mean as CMean", "Max as CMax"))
    edited(folder / file, *changes)
    verdict = verify(folder, finished.cache)
    assert not verdict.holds
    assert says in " ".join(verdict.problems)
    assert verdict.accuracy is None


def test_a_score_outside_the_interval_is_told(finished: Finished, tmp_path: Path) -> None:
    folder = taken(finished, tmp_path / "winner")
    report = read_report(folder)
    claimed = report.result.accuracy.model_copy(update={"mean": 0.9, "low": 0.8, "high": 1.0})
    boast = report.model_copy(update={"result": report.result.model_copy(update={"accuracy": claimed})})
    (folder / REPORT).write_text(boast.model_dump_json())
    verdict = verify(folder, finished.cache)
    assert not verdict.holds
    assert "outside the recorded interval [80.0, 100.0]" in verdict.problems[0]


def test_nothing_is_overwritten_without_force(finished: Finished, tmp_path: Path) -> None:
    folder = tmp_path / "winner"
    folder.mkdir()
    taken(finished, folder)  # an empty folder is as good as none
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match="not empty"):
        taken(finished, folder)
    assert (folder / "mine.txt").read_text() == "keep"
    taken(finished, folder, force=True)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    with pytest.raises(ExportError, match="not a folder"):
        taken(finished, folder / FLOW, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["winner"]


def test_the_command(finished: Finished, tmp_path: Path) -> None:
    runner, to = CliRunner(), tmp_path / "winner"
    database = finished.ledger.url.removeprefix("sqlite:///")
    runs = str(finished.cache.parent)
    done = runner.invoke(app, ["best", "--to", str(to), "--db", database, "--json"])
    assert done.exit_code == 0, done.output
    assert read_report(to).name in done.output
    again = runner.invoke(app, ["best", "--to", str(to), "--db", database])
    assert again.exit_code == 2
    assert "--force" in again.output
    checked = runner.invoke(app, ["--verify", str(to), "--runs-dir", runs])
    assert checked.exit_code == 0, checked.output
    assert "holds" in checked.output
    edited(to / REPORT, ('"topk_val": 2', '"topk_val": 3'))
    broken = runner.invoke(app, ["--verify", str(to), "--runs-dir", runs])
    assert broken.exit_code == 1
    assert "FAILS" in broken.output
    for wrong in ([], ["best"], ["--to", str(to)], ["best", "--to", str(to), "--verify", str(to)]):
        assert runner.invoke(app, wrong).exit_code == 2
    assert runner.invoke(app, ["--verify", str(tmp_path / "nothing")]).exit_code == 2
    assert (
        runner.invoke(app, ["best", "--to", str(tmp_path / "x"), "--db", str(tmp_path / "no.db")]).exit_code
        == 2
    )
