"""VortexConfig: the published names, defaults and checks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from vortex.config import UNSUPPORTED, VortexConfig, faults, refusals
from vortex.engine.sgl.config import VortexConfig as Published
from vortex.errors import ConfigError

DEFAULTS = {
    "module_path": None,
    "module_name": None,
    "topk_val": 30,
    "topk_ratio": 0.0,
    "max_topk_val": None,
    "layers_skip": None,
    "block_reserved_bos": 1,
    "block_reserved_eos": 1,
    "max_seq_lens": -1,
    "block_size": None,
    "workload_chunk_size": 32,
    "dtype": "bfloat16",
    "compilation_cache_dir": None,
    "schedule_policy": None,
    "attention_backend": "flashinfer",
    "impl_backend": "triton",
    "use_tensor_core": False,
}
OURS = {"dense_crossover": True}


def test_the_published_fields_and_defaults() -> None:
    assert VortexConfig().model_dump() == DEFAULTS | OURS
    assert Published is VortexConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topk_val", 0),
        ("topk_val", 2**30 + 1),  # sums with it fit 32 bits
        ("block_reserved_bos", 2**20 + 1),
        ("topk_val", 2.5),
        ("topk_val", True),
        ("topk_ratio", 1.1),
        ("topk_ratio", -0.1),
        ("max_topk_val", 29),
        ("layers_skip", [-1]),
        ("block_reserved_bos", 0),
        ("block_reserved_eos", 0),
        ("max_seq_lens", 0),
        ("block_size", 24),
        ("workload_chunk_size", 33),
        ("dtype", "int8"),
        ("attention_backend", "triton"),
        ("impl_backend", "cutlass"),
        ("use_tensor_core", "yes"),
        ("schedule_policy", " \n"),
        ("topk_ratio", "0.5"),
        ("topk_ratio", True),
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        VortexConfig.model_validate({field: value})


@pytest.mark.parametrize("field", ["block_size", "workload_chunk_size"])
@pytest.mark.parametrize("value", [24, 0, -8, 3])
def test_blocks_and_chunks_are_powers_of_two(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"must be a positive power of 2, got {value}"):
        VortexConfig.model_validate({field: value})
    assert VortexConfig.model_validate({field: 1}).model_dump()[field] == 1


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="use_tensor_core needs impl_backend='triton'"):
        VortexConfig(use_tensor_core=True, impl_backend="cuda")
    with pytest.raises(ValidationError, match="module_path needs module_name"):
        VortexConfig(module_path="flow.py")
    assert VortexConfig(layers_skip=(3, 1, 3)).layers_skip == (1, 3)
    assert VortexConfig(layers_skip=()).layers_skip is None


def test_unknown_names_get_the_nearest_known_one() -> None:
    with pytest.raises(ValidationError, match="did you mean 'topk_val'"):
        VortexConfig.model_validate({"topk_vals": 3})
    for name in UNSUPPORTED:
        with pytest.raises(ValidationError, match=f"{name} is not supported"):
            VortexConfig.model_validate({name: 1})
        assert VortexConfig.model_validate({name: None}) == VortexConfig()


def test_a_file_finds_its_flow_beside_it(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"module_path": "flow.py", "module_name": "config_test_flow", "topk_val": 5}))
    config = VortexConfig.from_file(path)
    assert config.module_path == str(tmp_path / "flow.py")
    assert config.load_graph().selector.op == "topK"
    with pytest.raises(ConfigError, match="module_name"):
        VortexConfig().load_graph()


def test_the_servers_argument_is_json_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"topk_val": 5}')
    assert (
        VortexConfig.from_text(str(path))
        == VortexConfig.from_text('{"topk_val": 5}')
        == VortexConfig(topk_val=5)
    )


def test_every_fault_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        VortexConfig.model_validate({"topk_val": 0, "block_size": 3, "dtype": "int8"})
    found = dict(faults(caught.value))
    assert set(found) == {"topk_val", "block_size", "dtype"}
    assert found["block_size"] == "must be a positive power of 2, got 3"
    assert found["topk_val"].endswith(", got 0")
    refused = refusals({"topk_vals": 1, "kv_int4": True, "host_kv_gb": 0, "topk_val": 1}, "vortex_")
    assert set(refused) == {"topk_vals", "kv_int4"}
    assert "did you mean 'vortex_topk_val'" in refused["topk_vals"]


def test_importing_the_configuration_is_light() -> None:
    code = "import sys, vortex.engine.sgl.config; print([m for m in ('torch', 'sglang') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


FLOW = """
from vortex_torch.cache import Mean as CMean
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import GeMM, Mean, topK


@register("config_test_flow")
class Centroid(vFlow):
    def __init__(self):
        super().__init__()
        self.summary, self.mean, self.dot, self.top = CMean(dim=1), Mean(dim=1), GeMM(), topK()

    def create_cache(self, block_size, head_dim):
        return {"c": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.summary(cache["k"], cache["c"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        self.top(self.dot(self.mean(q, ctx=ctx), cache["c"], ctx=ctx), o, ctx=ctx)
"""
