"""The published module paths: two names, one implementation."""

from __future__ import annotations

import subprocess
import sys

import pytest

NAMES = {
    "flow": ["vFlow", "vFlowMLA", "register"],
    "flow.algorithms": ["BlockSparseAttention", "QuestMLA"],
    "flow.verify": ["verify_flow_compilable"],
    "indexer": ["Mean", "GeMM", "topK"],
    "indexer.context": ["Context", "get_ctx"],
    "cache": ["Mean", "Fill"],
    "cache.context": ["Context", "get_ctx"],
    "abs": ["ContextBase"],
    "engine.sgl.config": ["VortexConfig"],
    "engine.sgl.check_engine_config": ["check_engine_config"],
}


@pytest.mark.parametrize("module", NAMES)
@pytest.mark.parametrize("first", ["vortex", "vortex_torch"])
def test_both_names_give_the_same_objects(module: str, first: str) -> None:
    second = {"vortex": "vortex_torch", "vortex_torch": "vortex"}[first]
    names = ", ".join(NAMES[module])
    script = (
        f"from {first}.{module} import {names}\n"
        f"ours = ({names},)\n"
        f"from {second}.{module} import {names}\n"
        f"assert all(a is b for a, b in zip(ours, ({names},), strict=True))\n"
        f"import sys, {first}.{module}, {second}.{module}\n"
        f"assert sys.modules['{first}.{module}'] is sys.modules['{second}.{module}']\n"
        f"assert sys.modules['{first}.{module}'].__name__ == 'vortex.{module}'\n"
        "assert not {'torch', 'sglang'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["vortex", "vortex_torch"])
@pytest.mark.parametrize("module", ["flow.verify", "engine.sgl.check_engine_config", "check"])
def test_command_lines_run_under_both_names(package: str, module: str) -> None:
    command = [sys.executable, "-m", f"{package}.{module}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Usage:" in done.stdout, done.stderr) == (0, True, "")
