"""The published Quick Start file runs character for character."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vortex.flow.flows import QUICK_START
from vortex.flow import load_graph, trace_source
from vortex.graph import Stage


def test_it_is_the_mean_centroid_algorithm(tmp_path: Path) -> None:
    file = tmp_path / "quick_start.py"
    file.write_text(QUICK_START)
    graph = load_graph(file)
    assert graph.hash == load_graph("block_sparse_attention").hash == trace_source(QUICK_START).hash
    assert [field.name for field in graph.fields] == ["centroids"]
    assert [node.op for node in graph.cache] == ["Mean"]
    assert [node.op for node in graph.indexer] == ["Mean", "GeMM", "topK"]
    assert [node.type.text(Stage.INDEXER) for node in graph.indexer] == [
        "[1, 1, head_dim]",
        "[S, 1, 1]",
        "[S, 1, 1]",
    ]
    assert graph.indexer[0].line == 1 + QUICK_START.splitlines().index(
        "        q_mean = self.mean(q, ctx=ctx)"
    )
    assert load_graph("custom_sparse_attention").hash == graph.hash


@pytest.mark.parametrize("first", ["", "import torch"])
def test_in_a_fresh_process_with_and_without_torch(tmp_path: Path, first: str) -> None:
    """By import, as a user's script would, and by the loader; torch is only there if the user's own code
    imports it."""
    (tmp_path / "my_flow.py").write_text(
        QUICK_START.replace("import torch\n", "", 1).replace("torch.Tensor", "object")
    )
    (tmp_path / "with_torch.py").write_text(QUICK_START)
    script = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
{first}
from vortex.flow import load_file, build_vflow, trace_flow
had = 'torch' in sys.modules
names = load_file({str(tmp_path / "with_torch.py")!r})
flow = build_vflow(names[0])
print(trace_flow(flow).hash)
assert ('torch' in sys.modules) == had == {bool(first)}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == trace_source(QUICK_START).hash


def test_it_can_be_initialised_again_and_again(tmp_path: Path) -> None:
    from vortex.flow import build_vflow

    file = tmp_path / "quick_start_again.py"
    file.write_text(QUICK_START.replace("custom_sparse_attention", "custom_again"))
    flow = build_vflow("custom_again", user_file=file)
    for block_size, head_dim in ((16, 128), (32, 64), (16, 128)):
        flow.initialize(block_size, head_dim, "bfloat16", "bfloat16")  # type: ignore[attr-defined]
        assert list(flow.get_cache_meta_info()) == ["centroids", "k", "v"]
        (dims, _), *_ = flow.get_cache_meta_info().values()
        assert dims == (1, head_dim)
        assert flow.get_token_ratio() == pytest.approx(2 + 1 / block_size)
        assert flow.get_aux_token_ratio() == pytest.approx(1 / block_size)
    flow.initialize(16, 128, "fp8_e4m3", "bfloat16")  # type: ignore[attr-defined]
    assert flow.get_aux_token_ratio() == pytest.approx(2 / 16)
