from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from evaluators.ruler import TASKS, generate
from evaluators.ruler.__main__ import main

app = typer.Typer()
app.command()(main)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_json_has_the_prompts_and_the_data(tokenizer: Any, squad_file: Path) -> None:
    arguments = ("--length", "1024", "--samples", "2", "--seed", "3", "--squad", str(squad_file), "--json")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["data"]) == set(TASKS) - {"qa_2"}
    assert document["data"]["qa_1"] == str(squad_file)
    assert document["data"]["niah_single_2"] == "generated prose"
    assert "Sources(hotpotqa=" in document["left_out"]["qa_2"]
    texts = [sample["text"] for sample in document["samples"] if sample["task"] == "vt"]
    assert texts == [prompt.text for prompt in generate("vt", 1024, tokenizer, 2, 3)]


def test_text_shows_samples_answers_and_data(tokenizer: Any) -> None:
    result = run("--task", "niah_single_1", "--task", "qa_1", "--length", "512")
    prompt = generate("niah_single_1", 512, tokenizer, 1, 0)[0]
    assert result.exit_code == 0
    assert f"{len(prompt.ids)} + 128 of 512 tokens" in result.stdout
    assert f"answers (all): {prompt.answers[0]}" in result.stdout
    assert "did not run: qa_1 needs its data" in result.stdout


def test_saved_data_sets_load_again(tmp_path: Path) -> None:
    import datasets

    result = run("--task", "fwe", "--length", "600", "--samples", "2", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert datasets.load_from_disk(tmp_path / "fwe")["index"][:] == [0, 1]


def test_errors_are_said_plainly(tmp_path: Path) -> None:
    result = run("--task", "niah")
    assert result.exit_code == 2
    assert "unknown task 'niah'" in result.output
    result = run("--task", "qa_1", "--length", "512")
    assert result.exit_code == 1
    result = run("--task", "vt", "--model", str(tmp_path / "none"))
    assert result.exit_code == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['ruler', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('evaluators.ruler', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
