"""The HTTP server on the CPU with the probe model: started by hand and by the example's script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openai
import pytest

from agent.export.server import HOST, Server, ServerError, free_port
from evaluators.probe import PROBE_PATH
from tests.sgl.engines import OPTIONS, VARIABLES
from tests.sgl.servers import CPU_FLAGS, PROMPT
from vortex.config import VortexConfig
from vortex.engine.sgl.model_shape import read_shape
from vortex.runtime.plan import make_plan

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPE = read_shape(PROBE_PATH)
NEW = 8
FLOW = """
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import GeMM, Mean, topK
from vortex_torch.cache import Max as CMax

@register("served_flow")
class Served(vFlow):
    def __init__(self):
        super().__init__()
        self.mean, self.gemm, self.select, self.summary = Mean(dim=1), GeMM(), topK(), CMax(dim=1)

    def create_cache(self, block_size, head_dim):
        return {"peaks": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.summary(cache["k"], cache["peaks"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        self.select(self.gemm(self.mean(q, ctx=ctx), cache["peaks"], ctx=ctx), o, ctx=ctx)
"""


def by_hand(config: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(PROBE_PATH)]
    command += ["--host", HOST, "--port", str(port), "--page-size", "16", "--disable-overlap-schedule"]
    return [*command, "--vortex-config", config, *CPU_FLAGS]


def expect_sparse(server: Server, config: VortexConfig) -> None:
    """A completion is decoded through the flow, and reads the blocks that the plan says."""
    assert SHAPE is not None
    before = server.counters()
    answer = server.complete(PROMPT, NEW)
    assert answer.completion_tokens == NEW
    after = server.counters()
    steps = answer.prompt_tokens + np.arange(1, NEW)  # the first token is the prefill's
    plan = make_plan(steps, config.block_size or 16, config, None)
    assert plan.sparse.all()
    layers = SHAPE.layers - len(config.layers_skip or ())
    assert after.flow == config.module_name
    assert after.sparse_layers == layers
    assert after.sparse_steps - before.sparse_steps == NEW - 1
    assert after.blocks_read - before.blocks_read == plan.chosen.sum() * layers * SHAPE.kv_heads
    assert after.blocks_total - before.blocks_total == plan.n.sum() * layers * SHAPE.kv_heads


def test_the_example_serves_the_openai_api(tmp_path: Path) -> None:
    port = free_port()
    command = [str(EXAMPLES / "server_launch.sh"), str(PROBE_PATH), "1", *CPU_FLAGS]
    environment = {**VARIABLES, "PORT": str(port), "PYTHON": sys.executable}
    with Server(command, port, tmp_path / "log", environment) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        streamed = client.completions.create(
            model="default", prompt=PROMPT, max_tokens=NEW, temperature=0, stream=True
        )
        text = "".join(chunk.choices[0].text for chunk in streamed)
        assert text
        assert text == client.completions.create(
            model="default", prompt=PROMPT, max_tokens=NEW, temperature=0
        ).choices[0].text  # fmt: skip
        settings = json.loads(server.info()["json_model_override_args"])["vortex"]
        expect_sparse(server, VortexConfig.model_validate(settings))
        group = server.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


@pytest.mark.full
def test_a_config_file_names_a_flow_beside_it(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    config = VortexConfig(module_path="flow.py", module_name="served_flow", topk_val=4, block_size=8)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    port = free_port()
    command = by_hand(str(tmp_path / "config.json"), port)
    with Server(command, port, tmp_path / "log", VARIABLES) as server:
        expect_sparse(server, config)


WRONG = [
    ('{"module_name": "block_sparse_attention", "topk_vla": 3, "block_size": 16}', "did you mean 'topk_val'"),
    ('{"module_name": "block_sparse_attention", "layers_skip": [9], "block_size": 16}', "layers_skip"),
    ('{"module_name": "block_sparse_attentoin", "block_size": 16}', "block_sparse_attention"),
    ("nowhere.json", "vortex_config"),
]


@pytest.mark.parametrize(
    ("config", "says"), [WRONG[0], *(pytest.param(*one, marks=pytest.mark.full) for one in WRONG[1:])]
)
def test_a_wrong_config_stops_the_server(tmp_path: Path, config: str, says: str) -> None:
    port, begin = free_port(), time.monotonic()
    server = Server(by_hand(config, port), port, tmp_path / "log", VARIABLES)
    with pytest.raises(ServerError, match=r"ended with status [1-9]") as error, server:
        pass
    assert says in str(error.value)
    assert time.monotonic() - begin < 120


@pytest.mark.full
def test_the_offline_example() -> None:
    """As it stands, but for what a machine without a GPU needs."""
    path = str(EXAMPLES / "offline.py")
    options = {**OPTIONS, "skip_tokenizer_init": False, "max_total_tokens": 8192}
    program = (
        "import runpy, sglang, sys\n"
        f"real, sys.argv = sglang.Engine, [{path!r}, {str(PROBE_PATH)!r}]\n"
        f"sglang.Engine = lambda **asked: real(**(asked | {options!r}))\n"
        f"runpy.run_path({path!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **VARIABLES},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "15 sparse steps read " in done.stdout
