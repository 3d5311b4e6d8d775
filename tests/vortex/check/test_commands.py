"""The command lines, as people and agents call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vortex.check.sources import GOOD, ILL_TYPED, ONLY_128, TWO

WATCHED = ("torch", "transformers", "sglang", "matplotlib", "sqlalchemy")


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(GOOD)
    return path


def test_check_for_people(file: Path) -> None:
    done = run("vortex.check", file, "--config", '{"topk_val": 16}')
    assert done.returncode == 0, done.stderr
    for part in ("mean_centroid", "GeMM()", "[S, 1, 1]", "attention", "of dense", "configuration", "ok"):
        assert part in done.stdout


def test_check_for_agents(file: Path) -> None:
    file.write_text(ILL_TYPED)
    done = run("vortex.check", file, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["flows"][0]["error"]["line"] == 24


def test_an_error_names_its_place(file: Path) -> None:
    file.write_text(GOOD.replace("import torch\n", "import torch\nimport os\n"))
    done = run("vortex.check", file)
    assert done.returncode == 1
    assert f"{file}:2 forbidden" in done.stdout.replace("\n", "")


def test_what_a_flow_prints_does_not_break_the_document(file: Path) -> None:
    file.write_text(f"print('hello')\n{GOOD}")
    done = run("vortex.check", file, "--json", "--trust")
    assert done.returncode == 0
    assert json.loads(done.stdout)["source"]["kind"] == "forbidden"
    assert "hello" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing.py",),
        ("FILE", "--name", "other"),
        ("FILE", "--config", "nothing.json"),
        ("FILE", "--config", "{1"),
        ("FILE", "--block-size", "0"),
        ("FILE", "--nonsense"),
        (),
    ],
)
def test_wrong_use(file: Path, arguments: tuple[str, ...]) -> None:
    done = run("vortex.check", *[file if word == "FILE" else word for word in arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_a_check_is_light(file: Path) -> None:
    """Everything at once (flow, configuration, sweep, tables) without the heavy libraries."""
    script = (
        "import sys\n"
        "from vortex.check.command import app\n"
        f"app([{str(file)!r}, '--config', '{{\"topk_val\": 16}}'], standalone_mode=False)\n"
        f"print([name for name in {WATCHED} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_imports_nothing_of_the_compiler() -> None:
    script = (
        "import sys\n"
        "from vortex.check.command import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print([name for name in ('vortex.ops', 'pydantic', 'numpy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_verify_for_people_and_agents(file: Path) -> None:
    file.write_text(ONLY_128)
    done = run("vortex.flow.verify", file, "--graph-only")
    assert done.returncode == 0, done.stderr
    assert "90 times:" in done.stdout
    done = run("vortex.flow.verify", file, "--graph-only", "--head-dim", "64", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["compiled"], document["failed"]) == (0, 30)
    assert run("vortex.flow.verify", "nothing").returncode == 2
    file.write_text(TWO)
    done = run("vortex.flow.verify", f"{file}:with_spare", "--graph-only")
    assert (done.returncode, "with_spare" in done.stdout) == (0, True)


def test_verify_builds_the_programs_of_a_target() -> None:
    sizes = ("--block-size", "16", "--head-dim", "64", "--group", "4", "--dtype", "bfloat16")
    done = run(
        "vortex_torch.flow.verify", "gqa_quest_sparse_attention", "--target", "torch", *sizes, "--json"
    )
    assert done.returncode == 0, done.stderr
    (attempt,) = json.loads(done.stdout)["attempts"]
    assert (attempt["target"], attempt["dtype"], attempt["error"]) == ("torch", "bfloat16", None)
    done = run("vortex.flow.verify", "gqa_quest_sparse_attention", "--dtype", "bfloat61")
    assert (done.returncode, "did you mean 'bfloat16'" in done.stderr) == (2, True)
