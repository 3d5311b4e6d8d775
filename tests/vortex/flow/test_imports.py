"""`vortex_torch` is `vortex`; importing and tracing is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ["flow", "indexer", "cache", "abs", "graph", "ops", "flow.algorithms", "graph.model"]


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("alias_first", [False, True])
def test_the_alias_is_the_package(alias_first: bool) -> None:
    imports = (
        [f"import vortex.{name}" for name in MODULES],
        [f"import vortex_torch.{name}" for name in MODULES],
    )
    lines = [*imports[alias_first], *imports[not alias_first]]
    python(
        "\n".join(lines)
        + f"""
import sys, importlib
for name in {MODULES}:
    module = importlib.import_module('vortex.' + name)
    assert importlib.import_module('vortex_torch.' + name) is module
    assert module.__spec__.name == 'vortex.' + name == module.__name__, module.__spec__
import vortex_torch, vortex
assert vortex_torch is vortex
"""
    )


def test_a_missing_submodule_of_the_alias() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"vortex\.nothing"):
        import vortex_torch.nothing  # noqa: F401


@pytest.mark.parametrize(
    "module", [f"vortex.{name}" for name in MODULES] + ["vortex_torch.indexer", "vortex"]
)
def test_any_module_may_come_first_and_none_imports_torch(module: str) -> None:
    python(
        f"import sys, {module}\nimport vortex.flow as f\nassert 'torch' not in sys.modules\n"
        "g = f.load_graph('gqa_quest_sparse_attention'); g.hash; g.to_json()\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "from vortex.graph import FlowGraph; assert FlowGraph.from_json(g.to_json()) == g\n"
        "from vortex.graph.cost import row_cost; from vortex.graph import Geometry\n"
        "row_cost(g, Geometry(), 999, 9)\n"
        "assert 'torch' not in sys.modules"
    )


def test_importing_is_fast() -> None:
    """Less than 0.15 s of the processor's time, whatever else it is busy with."""
    modules = "vortex.flow, vortex.indexer, vortex.cache"
    script = f"import time; t = time.process_time(); import {modules}; print(time.process_time() - t)"
    python(script)  # compiles
    assert min(float(python(script)) for _ in range(5)) < 0.15
