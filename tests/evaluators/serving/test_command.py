from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evaluators.serving.__main__ import app
from evaluators.serving.dummy import write_geometry

CPU = ["--engine", '{"device": "cpu", "attention_backend": "torch_native"}']


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "m", "--dummy-geometry", "qwen3-0.6b"], "exclude each other"),
        (["--dummy-geometry", "qwen3-0.5b"], "did you mean 'qwen3-0.6b'"),
        (["--dummy-geometry", "qwen3-0.6b", "--flow", "gqa_quest"], "gqa_quest_sparse_attention"),
        (["--flow", "a", "--flow", "b", *["--config", "{}"] * 3], "3 --config for 2 --flow"),
        (["--flow", "a", "--config", '{"topk": 3}'], "topk_val"),
        (["--model", "nowhere"], "no config.json there"),
        (["--dummy-geometry", "qwen3-0.6b", "--dense", "none"], "nothing to measure"),
        (["--extra", "[]"], "--extra must be a JSON object"),
        (["--engine", '{"page": 3}'], "page"),
    ],
)
@pytest.mark.parametrize("command", ["throughput", "latency"])
def test_what_cannot_be_measured_is_said_before_an_engine_starts(
    command: str, arguments: list[str], said: str
) -> None:
    engine = [] if "--engine" in arguments else CPU
    told = CliRunner().invoke(app, [command, *arguments, *engine])
    assert told.exit_code != 0
    assert said in " ".join(told.output.replace("│", " ").split())


def test_lengths_and_rates_are_numbers(tmp_path: Path) -> None:
    model = write_geometry("qwen3-0.6b", tmp_path)
    for command, option in (("throughput", "--lengths"), ("latency", "--rates")):
        told = CliRunner().invoke(app, [command, "--model", str(model), option, "1,two"])
        assert told.exit_code != 0
        assert "numbers above 0" in told.output
