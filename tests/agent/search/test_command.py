from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.search.command import _with_run

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments: str, module: str = "agent.search") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("module", ["agent.search", "agent.leaderboard"])
def test_help_is_quick_and_imports_nothing_heavy(module: str) -> None:
    before = _children_cpu()
    assert command("--help", module=module).returncode == 0
    assert _children_cpu() - before < 0.5  # of the processor: what others do on this machine does not count
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'sqlalchemy', 'ray', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_says_what_the_budget_counts() -> None:
    text = " ".join(command("--help").stdout.replace("│", " ").split())
    assert "Dense attention and the seed flows are measured first" in text


def test_resume_may_stand_alone() -> None:
    assert _with_run(["--resume"]) == ["--resume", "last"]
    assert _with_run(["--resume", "--json"]) == ["--resume", "last", "--json"]
    assert _with_run(["--budget", "3", "--resume", "run-7"]) == ["--budget", "3", "--resume", "run-7"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proposer", "oracle"], "proposer: Input should be 'auto', 'llm', 'evolution' or 'random'"),
        (["--executor", "cluster"], "executor: Input should be 'ray' or 'local'"),
        (["--engine", "vllm"], "engine: Input should be 'hf' or 'sglang'"),
        (["--tp", "2", "--kv-dtype", "fp8_e4m3"], "--kv-dtype, --tp: for --engine sglang only"),
        (["--resume", "nothing"], "there is no such file: run a search first"),
        (["--resume", "--seed", "3"], "--seed cannot change when a run is resumed"),
        (["--model", "/nowhere"], "no config.json there"),
        (["--db", "nosuch://x"], "not a database this installation can open"),
    ],
)
def test_mistakes_are_said_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    told = command(*arguments, "--runs-dir", str(tmp_path))
    assert told.returncode == 1
    assert message in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
    assert "--resume" not in arguments or not list(tmp_path.iterdir())


def test_the_llm_proposer_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    told = command("--proposer", "llm", "--runs-dir", str(tmp_path))
    assert told.returncode == 1
    assert "OPENAI_API_KEY" in told.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_interrupts_and_more_do_not_disturb(number: signal.Signals) -> None:
    code = (
        "import os, time\n"
        "from agent.search import interrupts\n"
        "interrupts.install()\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(number)}); time.sleep(10)\n"
        "except KeyboardInterrupt:\n"
        "    os.kill(os.getpid(), 2); os.kill(os.getpid(), 15); print('closed')\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (0, "closed\n")
