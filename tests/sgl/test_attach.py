"""SGLang goes on without a plugin that fails. An engine that was asked to be sparse does not start then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sgl.engines import VARIABLES, Engines
from tests.sgl.models import LAYERS, settings
from vortex.engine.sgl import control
from vortex.errors import ConfigError

SCRIPT = """
import os, sys
import sglang
from tests.sgl.engines import OPTIONS
from tests.sgl.models import settings

if __name__ == "__main__":
    {first}
    try:
        sglang.Engine(model_path=sys.argv[1], vortex=settings("block_sparse_attention"), **OPTIONS)
        print("runs")
    except Exception as error:
        print(type(error).__name__, error)
"""
LATER = "from sglang.srt.plugins import load_plugins; load_plugins(); os.environ['SGLANG_PLUGINS'] = 'other'"
OTHER_VERSION = (
    "from sglang.srt.layers.attention import attention_registry as it; del it.attn_backend_wrapper"
)


@pytest.mark.parametrize(
    ("first", "says"),
    [
        pytest.param(
            "os.environ['SGLANG_PLUGINS'] = 'other'",
            "TypeError ServerArgs.__init__() got an unexpected keyword argument 'vortex'",
            id="no process has the plugin",
        ),
        pytest.param(
            LATER,
            "ConfigError the scheduler of rank 0 did not attach Vortex: is vortex installed there (the entry "
            "point of group sglang.srt.plugins), and allowed by SGLANG_PLUGINS?",
            id="the schedulers have no plugin",
        ),
        pytest.param(
            OTHER_VERSION,
            "ConfigError vortex cannot attach to sglang.srt.layers.attention.attention_registry."
            "attn_backend_wrapper: this needs SGLang 0.5.16",
            id="nothing to attach to",
        ),
    ],
)
def test_an_engine_that_is_not_sparse_does_not_start(
    model_path: Path, tmp_path: Path, first: str, says: str
) -> None:
    script = tmp_path / "start.py"
    script.write_text(SCRIPT.format(first=first))
    run = subprocess.run(
        [sys.executable, str(script), str(model_path)],
        env={**os.environ, **VARIABLES, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.stdout.strip() == says


@pytest.mark.full
def test_a_layer_with_scales_of_its_own_stays_dense(engines: Engines, tmp_path: Path) -> None:
    factors = {str(layer): 0.5 if layer == 1 else 1.0 for layer in range(LAYERS)}
    scales = {"dtype": "float8_e4m3fn", "scaling_factor": {"0": factors}}
    file = tmp_path / "scales.json"
    file.write_text(json.dumps({"model_type": "qwen3", "kv_cache": scales}))
    config = settings("block_sparse_attention", layers_skip=[1])
    engine = engines.sparse(config, kv_cache_dtype="fp8_e4m3", quantization_param_path=str(file))
    with pytest.raises(ConfigError) as caught:
        control.deploy(engine, config.model_copy(update={"layers_skip": None}))
    assert str(caught.value) == "vortex_layers_skip: layer 1 needs scales of an fp8 KV cache: add it"


def test_a_model_cannot_ask_for_vortex(model_path: Path, tmp_path: Path) -> None:
    """The config of a model from a hub is data; a VortexConfig may name code."""
    folder = shutil.copytree(model_path, tmp_path / "model")
    payload, ran = folder / "payload.py", tmp_path / "ran"
    payload.write_text(f"open({str(ran)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config["vortex"] = {"module_name": "payload", "module_path": str(payload)}
    (folder / "config.json").write_text(json.dumps(config))
    engines = Engines(folder)
    try:
        state = engines.dense().get_server_info()["internal_states"][0]
    finally:
        engines.close()
    assert "vortex" not in state
    assert not ran.exists()
