"""The scripts that start a server, up to where the server starts: tests/sgl goes on from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.export.choose import choose
from agent.export.folder import export
from agent.export.launch import engine_options, launch_script
from agent.export.report import CONFIG, LAUNCH, README
from search_spaces.seeds import seed_graphs
from tests.agent.export.conftest import Finished

EXAMPLE = Path(__file__).parents[3] / "examples" / "server_launch.sh"
GRAPHS = seed_graphs()


@pytest.fixture(params=["example", "exported"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "example":
        return EXAMPLE
    path = tmp_path / LAUNCH
    path.write_text(launch_script(engine_options(GRAPHS["block_sparse_attention"], 16)))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without packages."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def run(script: Path, *words: str, python: Path | str = sys.executable, folder: Path = Path("/")) -> str:
    """What the script says; it must end with status 2."""
    done = subprocess.run(
        [str(script), *words],
        capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "PYTHON": str(python)},
    )  # fmt: skip
    assert done.returncode == 2, done
    return done.stderr


@pytest.mark.parametrize("words", [(), ("",), ("--port", "1")])
def test_a_model_is_needed(script: Path, words: tuple[str, ...]) -> None:
    assert run(script, *words).startswith(f"{script.name}: no MODEL. Usage: {script.name} MODEL [TP]")


@pytest.mark.parametrize("tp", ["two", "0", "1.5"])
def test_tp_is_a_number(script: Path, tp: str) -> None:
    assert run(script, "model", tp) == f"{script.name}: TP is a number of GPUs, got '{tp}'\n"


def test_an_interpreter_is_needed(script: Path) -> None:
    assert "no interpreter 'nowhere/python': set PYTHON" in run(script, "model", python="nowhere/python")


def test_sglang_and_the_plugin_are_needed(script: Path, bare_python: Path, tmp_path: Path) -> None:
    assert f"{bare_python} has no SGLang" in run(script, "model", python=bare_python)
    (tmp_path / "sglang.py").touch()  # found in the working directory
    said = run(script, "model", "1", "--page-size", "8", python=bare_python, folder=tmp_path)
    assert "SGLang without the Vortex plugin" in said


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck(script: Path) -> None:
    subprocess.run(["shellcheck", str(script)], check=True)


@pytest.mark.parametrize(("block", "page"), [(8, 16), (16, 16), (64, 64)])
def test_pages_hold_whole_blocks(block: int, page: int) -> None:
    options = engine_options(GRAPHS["block_sparse_attention"], block)
    assert options["page_size"] == page
    assert f"  --page-size {page} \\\n" in launch_script(options)
    assert "--disable-radix-cache" not in launch_script(options)


def test_flows_that_save_go_without_prefix_cache() -> None:
    assert "  --disable-radix-cache \\\n" in launch_script(
        engine_options(GRAPHS["running_avg_block_sparse"], 16)
    )


@pytest.mark.parametrize("name", ["small", "quest it is!"])
def test_the_preflight_accepts_the_folder(finished: Finished, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "winner"
    candidate = finished.candidates[name]
    export(finished.ledger, finished.run, choose(finished.ledger, finished.run, candidate.hash, 0.05), folder)
    assert (folder / LAUNCH).stat().st_mode & 0o777 == 0o755
    assert f"{LAUNCH} MODEL [TP]" in (folder / README).read_text()
    config = json.loads((folder / CONFIG).read_text())
    engine = engine_options(candidate.graph, candidate.knobs.block_size)
    for document in (
        {"vortex_config": str(folder / CONFIG), **engine},
        {**{f"vortex_{key}": value for key, value in config.items()}, **engine},
    ):
        (folder / "engine.json").write_text(json.dumps(document))
        command = [sys.executable, "-m", "vortex.engine.sgl.check_engine_config", str(folder / "engine.json")]
        done = subprocess.run([*command, "--graph-only"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
