"""VortexConfig: the published names, defaults and checks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from vortex.config import UNSUPPORTED, VortexConfig
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


def test_the_published_fields_and_defaults() -> None:
    assert VortexConfig().model_dump() == DEFAULTS
    assert Published is VortexConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topk_val", 0),
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
    ],
)
def test_bad_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        VortexConfig.model_validate({field: value})


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="use_tensor_core needs impl_backend='triton'"):
        VortexConfig(use_tensor_core=True, impl_backend="cuda")
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
