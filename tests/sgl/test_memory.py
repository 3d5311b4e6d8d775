"""The bytes of summaries count when SGLang sizes its pool: fewer tokens fit, none is promised twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.sgl.engines import VARIABLES
from tests.sgl.models import settings

SCRIPT = """
import sys
from types import SimpleNamespace

import torch
from sglang.srt.plugins import load_plugins

load_plugins()
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import init_distributed_environment, initialize_model_parallel
from sglang.srt.model_executor.pool_configurator import DefaultPoolConfigurator
from sglang.srt.server_args import ServerArgs
from tests.sgl.models import settings


def token_bytes(**vortex):
    args = ServerArgs(model_path=sys.argv[1], device="cpu", attention_backend="torch_native", dtype="float32",
                      page_size=16, skip_tokenizer_init=True, **vortex)
    runner = SimpleNamespace(model_config=ModelConfig.from_server_args(args), kv_cache_dtype=torch.float32,
                             use_mla_backend=False, page_size=16, is_draft_worker=False, server_args=args,
                             layer_info=None)
    configurator = object.__new__(DefaultPoolConfigurator)
    return DefaultPoolConfigurator._compute_cell_size(configurator, runner, int(sys.argv[3]))


if __name__ == "__main__":
    init_distributed_environment(backend="gloo", world_size=1, rank=0, local_rank=0,
                                 distributed_init_method="file://" + sys.argv[2])
    initialize_model_parallel(backend="gloo")
    quest = settings("gqa_quest_sparse_attention", layers_skip=(0,), block_size=8)
    print(token_bytes(), token_bytes(vortex=quest))
"""


def test_summaries_count_in_the_pool(model_path: Path, tmp_path: Path) -> None:
    config = json.loads((model_path / "config.json").read_text())
    layers, heads, width = (config[key] for key in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
    script = tmp_path / "sizes.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(script), str(model_path), str(tmp_path / "store"), str(layers)],
        env={**os.environ, **VARIABLES, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    dense, sparse = map(int, run.stdout.split()[-2:])
    assert dense == layers * heads * 2 * width * 4  # K and V in float32
    # Quest keeps the min and max of a block of 8, in the type that the settings of these tests name
    summary = 2 * width * getattr(torch, settings("block_sparse_attention").dtype).itemsize
    assert sparse - dense == (layers - 1) * heads * summary // 8
