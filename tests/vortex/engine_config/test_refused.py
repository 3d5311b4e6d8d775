"""What SGLang offers and a sparse engine refuses, and models whose attention it cannot replace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vortex.config import VortexConfig
from vortex.engine.sgl.model_shape import read_shape
from vortex.engine.sgl.refused import ENVIRONMENT, OPTIONS, PACKED_KV_DTYPES
from vortex.engine.sgl.rules import (
    attention_ranks,
    config_errors,
    engine_errors,
    flow_errors,
    remarks,
    size_errors,
)
from vortex.engine.sgl.target import VARIABLE
from vortex.errors import ConfigError
from vortex.flow import load_graph

QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_size": 256,
    "max_position_embeddings": 4096,
    "sliding_window": None,
    "use_sliding_window": False,
    "layer_types": ["full_attention", "full_attention"],
}
PLAIN: dict[str, dict[str, Any]] = {
    "qwen3": QWEN,
    "qwen2, a window that is not used": {**QWEN, "sliding_window": 4096, "layer_types": None},
    "deepseek": {**QWEN, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "v_head_dim": 128},
    "a text part": {"text_config": QWEN, "model_type": "vision"},
}
OTHER: list[tuple[dict[str, Any], str]] = [
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: sliding_attention"),
    ({"layer_types": ["linear_attention", "full_attention"]}, "layer_types: linear_attention"),
    ({"layer_types": None, "use_sliding_window": True, "sliding_window": 512}, "the last 512 tokens"),
    ({"layer_types": None, "use_sliding_window": None, "sliding_window": 512}, "the last 512 tokens"),
    ({"layer_types": None, "use_sliding_window": None, "attention_chunk_size": 64}, "(attention_chunk_size)"),
    ({"full_attention_interval": 4}, "(full_attention_interval)"),
    ({"hybrid_override_pattern": "M-M*"}, "(hybrid_override_pattern)"),
    ({"is_encoder_decoder": True}, "is an encoder-decoder"),
    ({"cross_attention_layers": [3]}, "has cross attention"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
    ({"model_type": "gpt_oss"}, "attention sinks (gpt_oss)"),
    ({"add_swa_attention_sink_bias": True}, "attention sinks (add_swa_attention_sink_bias)"),
    ({"dual_chunk_attention_config": {"chunk_size": 8192}}, "dual chunk attention"),
    ({"index_topk": 2048}, "a sparse attention of its own (index_topk)"),
    ({"v_head_dim": 32}, "values of 32 features and keys of 64"),
]


def model(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("rule", OPTIONS, ids=lambda rule: rule.name)
def test_options(rule: Any) -> None:
    wrong = next(value for value in (True, 2, "other") if value not in rule.fine)
    (error,) = engine_errors({"page_size": 16, rule.name: wrong})
    assert error.key == rule.name
    assert f"is refused: {rule.reason}; {rule.fix}" in error.message
    for fine in (None, *rule.fine):
        assert list(engine_errors({rule.name: fine})) == []


@pytest.mark.parametrize("rule", ENVIRONMENT, ids=lambda rule: rule.name)
def test_environment(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, refused in (("1", True), ("True", True), ("yes", True), ("0", False), ("", False)):
        monkeypatch.setenv(rule.name, value)
        assert [error.key for error in engine_errors({})] == [rule.name] * refused


@pytest.mark.parametrize("dtype", PACKED_KV_DTYPES)
def test_packed_kv_caches(dtype: str) -> None:
    (error,) = engine_errors({"kv_cache_dtype": dtype})
    assert (error.key, "packed with scales" in error.message) == ("kv_cache_dtype", True)


def test_arguments_as_sglang_resolves_them() -> None:
    engine = {
        "page_size": None,
        "tp_size": 1,
        "mem_fraction_static": None,
        "disable_cuda_graph": None,
        "attention_backend": None,
        "kv_cache_dtype": "auto",
        "disaggregation_mode": "null",
        "speculative_algorithm": None,
        "pp_size": 1,
        "enable_hierarchical_cache": False,
    }
    assert list(engine_errors(engine)) == []
    assert list(size_errors(VortexConfig(block_size=16), engine, None)) == []


@pytest.mark.parametrize("name", PLAIN)
def test_plain_models(name: str, tmp_path: Path) -> None:
    shape = read_shape(model(tmp_path, PLAIN[name]))
    assert shape is not None
    assert shape.faults == ()


@pytest.mark.parametrize(("changes", "part"), OTHER, ids=[part for _, part in OTHER])
def test_models_with_another_attention(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    shape = read_shape(model(tmp_path, {**QWEN, **changes}))
    (error,) = size_errors(VortexConfig(), {"page_size": 16}, shape)
    assert error.key == "model_path"
    assert part in error.message
    assert error.message.endswith("; it can only be served densely")


def test_a_layer_is_left(tmp_path: Path) -> None:
    shape = read_shape(model(tmp_path, QWEN))
    assert list(size_errors(VortexConfig(layers_skip=(1,)), {"page_size": 16}, shape)) == []
    (error,) = size_errors(VortexConfig(layers_skip=(0, 1)), {"page_size": 16}, shape)
    assert (error.key, "skips every layer" in error.message) == ("vortex_layers_skip", True)


def test_heads_of_a_rank() -> None:
    assert attention_ranks({}) == attention_ranks({"tp_size": None}) == attention_ranks({"tp_size": "2"}) == 1
    assert attention_ranks({"tp_size": 4, "dp_size": 2}) == 4
    assert attention_ranks({"tp_size": 4, "dp_size": 2, "enable_dp_attention": True}) == 2


def test_mixed_batches() -> None:
    engine = {"enable_mixed_chunk": True, "disable_radix_cache": True}
    saving, plain = load_graph("running_avg_block_sparse"), load_graph("block_sparse_attention")
    (error,) = flow_errors(saving, engine, None)
    assert (error.key, "'running_score' would miss that step" in error.message) == (
        "enable_mixed_chunk",
        True,
    )
    assert list(flow_errors(plain, engine, None)) == []
    said = [remark.key for remark in remarks(VortexConfig(), {**engine, "page_size": 16}, None)]
    assert "enable_mixed_chunk" in said


def test_models_without_the_shape_of_a_decoder(tmp_path: Path) -> None:
    for config, part in (
        ({"is_encoder_decoder": True, "num_heads": 8}, "the model is an encoder-decoder"),
        ({"hybrid_override_pattern": "M-M*"}, "the model has layers of other kinds"),
        ({"num_heads": 8}, "does not describe a decoder: KeyError: 'num_attention_heads'"),
    ):
        with pytest.raises(ConfigError, match=part):
            read_shape(model(tmp_path, config))


def test_cuda_graphs_where_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {"cuda_graph_config": {"prefill": {"backend": "full"}}}
    for engine in ({"cuda_graph_backend_decode": "full"}, {"cuda_graph_config": {"decode": {"max_bs": 8}}}):
        assert list(engine_errors(engine)) == []
        (error,) = engine_errors({**engine, "device": "cpu"})
        assert "the torch target plans on the host, so CUDA graphs are off" in error.message
        monkeypatch.setenv(VARIABLE, "torch")
        assert list(engine_errors(engine)) == list(engine_errors({**engine, "device": "cuda"})) == [error]
        monkeypatch.delenv(VARIABLE)
    (error,) = engine_errors(whole)
    assert error.key == "cuda_graph_config"
    assert "summaries of a prompt are made between the graphs" in error.message
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(ConfigError, match="VORTEX_TARGET: unknown target 'cuda'"):
        list(engine_errors(whole))


def test_fields_that_only_kernels_honour() -> None:
    config = VortexConfig(use_tensor_core=True)
    assert list(config_errors(config, "triton")) == []
    (error,) = config_errors(config, "torch")
    assert error.key == "vortex_use_tensor_core"
    for target in ("triton", "torch"):
        (error,) = config_errors(VortexConfig(impl_backend="cuda"), target)
        assert error.key == "vortex_impl_backend"
        assert "kernels are generated in Triton: use 'triton'" in error.message
