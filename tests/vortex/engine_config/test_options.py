"""Engine options in their three forms fold into one VortexConfig."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vortex.config import UNSUPPORTED, VortexConfig
from vortex.engine.sgl.options import fold
from vortex.errors import ConfigError

ENGINE = {"model_path": "models/qwen", "page_size": 64, "tp_size": 2}
WANTED = VortexConfig(module_name="quest", topk_val=16, layers_skip=(0, 1), block_size=16)


def test_three_forms_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(WANTED.model_dump_json())
    forms: list[dict[str, Any]] = [
        {"vortex": WANTED},
        {"vortex": {"module_name": "quest", "topk_val": 16, "layers_skip": [0, 1], "block_size": 16}},
        {"vortex_config": WANTED.model_dump_json()},
        {"vortex_config": str(file)},
        {
            "enable_vortex_sparsity": True,
            "vortex_module_name": "quest",
            "vortex_topk_val": 16,
            "vortex_layers_skip": [0, 1],
            "vortex_block_size": 16,
        },
    ]
    for form in forms:
        assert fold({**ENGINE, **form}) == (WANTED, ENGINE)


@pytest.mark.parametrize("name", VortexConfig.model_fields)
def test_every_field_has_its_flat_key(name: str) -> None:
    values: dict[str, Any] = {
        "module_name": "flow",
        "module_path": "flow.py",
        "topk_val": 7,
        "topk_ratio": 0.5,
        "max_topk_val": 64,
        "layers_skip": [2],
        "block_reserved_bos": 2,
        "block_reserved_eos": 3,
        "max_seq_lens": 1024,
        "block_size": 32,
        "workload_chunk_size": 64,
        "dtype": "float16",
        "compilation_cache_dir": "kernels",
        "schedule_policy": "return topk_val;",
        "attention_backend": "trtllm",
        "impl_backend": "cuda",
        "use_tensor_core": True,
        "dense_crossover": False,
    }
    flat = {f"vortex_{name}": values[name], "vortex_module_name": "flow"}
    config, engine = fold({**ENGINE, **flat})
    assert config is not None
    assert getattr(config, name) == (tuple(values[name]) if name == "layers_skip" else values[name])
    assert engine == ENGINE


def test_an_explicit_object_wins_over_flat_keys() -> None:
    assert fold({"vortex": WANTED, "vortex_topk_val": 99, "enable_vortex_sparsity": False})[0] == WANTED


def test_off() -> None:
    assert fold(ENGINE) == (None, ENGINE)
    assert fold({**ENGINE, "enable_vortex_sparsity": False, "vortex_topk_val": 9}) == (None, ENGINE)
    assert fold({"enable_vortex_sparsity": True})[0] == VortexConfig()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"vortex_topk_vals": 3}, ["unknown field 'vortex_topk_vals'; did you mean 'vortex_topk_val'?"]),
        ({"vortex": WANTED, "vortex_block": 3}, ["did you mean 'vortex_block_size'?"]),
        ({"vortex_block_size": 24}, ["vortex_block_size: must be a positive power of 2, got 24"]),
        ({"vortex_block_size": 0}, ["vortex_block_size: must be a positive power of 2, got 0"]),
        ({"vortex_workload_chunk_size": -8}, ["must be a positive power of 2, got -8"]),
        ({"vortex_topk_val": 0, "vortex_dtype": "int8"}, ["vortex_topk_val: ", "vortex_dtype: ", "'int8'"]),
        ({"enable_vortex_sparsity": "yes"}, ["enable_vortex_sparsity: must be true or false, got 'yes'"]),
        ({"vortex": {"topk_val": 0, "block_size": 3}}, ["vortex.topk_val: ", "vortex.block_size: "]),
        ({"vortex": 3}, ["vortex: "]),
        ({"vortex_config": "nothing.json"}, ["vortex_config: cannot be read"]),
        ({"vortex_config": "{1}"}, ["vortex_config: "]),
        *[({f"vortex_{name}": 1}, [f"vortex_{name} is not supported"]) for name in UNSUPPORTED],
    ],
)
def test_every_wrong_key_is_named(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        fold({**ENGINE, **options})
    for part in parts:
        assert part in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_later_fields_at_their_defaults_pass() -> None:
    assert fold({f"vortex_{name}": None for name in UNSUPPORTED})[0] == VortexConfig()
    assert fold(json.loads('{"vortex_host_kv_gb": 0, "vortex_kv_int4": false}'))[0] == VortexConfig()
