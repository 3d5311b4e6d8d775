"""The guide to SGLang says what the code says: its fields, counters and refusals are all there are, and its
blocks are what can be run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.docs.guide import ROOT
from vortex.config import UNSUPPORTED, VortexConfig
from vortex.engine.sgl.check_engine_config import inspect_engine_config
from vortex.engine.sgl.counters import EngineCounters
from vortex.engine.sgl.refused import ENVIRONMENT, OPTIONS, PACKED_KV_DTYPES

TEXT = (ROOT / "docs" / "sglang.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(TEXT) if kind == language]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {kind for kind, _ in BLOCK.findall(TEXT)} == {"bash", "json", "py"}


def test_every_field_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", TEXT, re.M)
    fields = VortexConfig.model_fields
    assert {name: ast.literal_eval(value) for name, value in rows} == {
        name: field.default for name, field in fields.items()
    }
    assert len(rows) == len(fields)


def test_every_counter() -> None:
    table = TEXT.partition("| counter |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:]))
    assert sorted(named) == sorted(EngineCounters.model_fields)


def test_everything_that_is_refused() -> None:
    refused = TEXT.partition("## What is refused")[2].partition("\n## ")[0]
    names = {rule.name for rule in (*OPTIONS, *ENVIRONMENT)} | set(UNSUPPORTED)
    assert {name for name in names if f"`{name}`" not in refused} == set()
    assert any(f"`{name}`" in refused for name in PACKED_KV_DTYPES)


@pytest.mark.parametrize("code", blocks("py"))
def test_python_compiles_and_its_configs_are_valid(code: str) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "VortexConfig"
    ]
    assert calls
    for call in calls:
        given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        assert VortexConfig.model_validate(given).load_graph().kind == "gqa"


def test_the_offline_example_is_the_file() -> None:
    source = (ROOT / "examples" / "offline.py").read_text()
    assert source.partition('"""\n\n')[2] == blocks("py")[0]


def test_the_preflight_accepts_the_json(tmp_path: Path) -> None:
    (body,) = blocks("json")
    (tmp_path / "engine.json").write_text(body)
    assert json.loads(body)["vortex_module_name"]
    assert inspect_engine_config(tmp_path / "engine.json").errors == ()


@pytest.mark.parametrize("script", blocks("bash"))
def test_commands_are_commands(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if "--vortex-config" in words:
            config = VortexConfig.from_text(words[words.index("--vortex-config") + 1])
            assert config.load_graph().kind == "gqa"
        if words[0].startswith("examples/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111


@pytest.mark.parametrize("page", ["README.md", "docs/sglang.md", "docs/structure.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
