"""What is refused before SGLang starts a process, in the words of the preflight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import PreTrainedModel

from tests.sgl.engines import OPTIONS
from vortex.config import VortexConfig
from vortex.engine.sgl.check_engine_config import inspect_engine_config
from vortex.engine.sgl.refused import ENVIRONMENT
from vortex.errors import ConfigError
from vortex.flow.verify import GRAPH_ONLY

FLOW = "block_sparse_attention"
SAVING = "running_avg_block_sparse"
ENGINE: list[tuple[dict[str, Any], str]] = [
    (
        {"enable_hierarchical_cache": True},
        "enable_hierarchical_cache: is refused: it brings KV pages without",
    ),
    ({"enable_lmcache": True}, "enable_lmcache: is refused: it brings KV pages without a forward pass"),
    ({"disaggregation_mode": "decode"}, "disaggregation_mode: 'decode' is refused: it brings KV pages"),
    ({"enable_hisparse": True}, "enable_hisparse: is refused: it is another sparse attention"),
    (
        {"prefill_only_disable_kv_cache": True},
        "prefill_only_disable_kv_cache: is refused: without a KV cache",
    ),
    ({"enable_page_major_kv_layout": True}, "enable_page_major_kv_layout: is refused: blocks are read from"),
    ({"enable_unified_memory": True}, "enable_unified_memory: is refused: blocks are read from one buffer"),
    ({"dcp_size": 2}, "dcp_size: 2 is refused: the tokens of a request lie on several ranks"),
    ({"pp_size": 2}, "pp_size: 2 is refused: layers on several ranks are not supported yet; use tp_size"),
    ({"dp_size": 2}, "dp_size: 2 is refused: nothing asks its schedulers whether they are sparse"),
    ({"speculative_algorithm": "NGRAM"}, "'NGRAM' is refused: its verification steps are dense"),
    ({"enable_pdmux": True}, "enable_pdmux: is refused: it runs several attention backends"),
    ({"enable_two_batch_overlap": True}, "enable_two_batch_overlap: is refused: it runs several"),
    ({"cuda_graph_backend_decode": "full"}, "so CUDA graphs are off"),
    ({"kv_cache_dtype": "mxfp8"}, "kv_cache_dtype: 'mxfp8' is refused: keys are packed with scales"),
    ({"kv_cache_dtype": "fp4_e2m1"}, "kv_cache_dtype: 'fp4_e2m1' is refused: keys are packed"),
    ({"page_size": 1}, "page_size: is 1: a block lies within a page"),
    ({"page_size": 24}, "page_size: is the block size here and must be a positive power of 2, got 24"),
    ({"tp_size": 3}, "tp_size: the model's 8 query heads cannot be split over 3 ranks"),
    ({"attention_backend": "dual_chunk_flash_attn"}, "unknown attention backend 'dual_chunk_flash_attn'"),
    ({"attention_backend": "trtllm_mla"}, "attention_backend: trtllm_mla is for a vFlowMLA"),
]
CONFIG: list[tuple[dict[str, Any], str]] = [
    ({"module_name": None}, "vortex_module_name: is missing"),
    ({"module_name": "block_sparse"}, "did you mean 'block_sparse_attention'?"),
    ({"module_name": "quest_mla"}, "the flow is a vFlowMLA (latent), but the model needs a vFlow (k and v)"),
    ({"module_name": SAVING}, "disable_radix_cache: must be true: Save"),
    ({"block_size": 32}, "vortex_block_size: must divide page_size=16, got 32"),
    ({"layers_skip": [3]}, "vortex_layers_skip: the model has layers 0 to 2, got 3"),
    ({"max_seq_lens": 2048}, "vortex_max_seq_lens: the model's context is 1024 tokens, got 2048"),
    ({"schedule_policy": "return budget;"}, "vortex_schedule_policy: row 1, column "),
    ({"attention_backend": "trtllm"}, "vortex_attention_backend: 'trtllm' is not supported"),
    ({"impl_backend": "cuda"}, "vortex_impl_backend: 'cuda' is not supported"),
    ({"use_tensor_core": True}, "vortex_use_tensor_core: True is not supported"),
]
MODEL: list[tuple[dict[str, Any], str]] = [
    ({"layer_types": ["full_attention", "sliding_attention"] * 2}, "(layer_types: sliding_attention)"),
    ({"use_sliding_window": True, "sliding_window": 64, "layer_types": None}, "the last 64 tokens in some"),
    ({"attn_logit_softcapping": 30.0}, "caps its attention logits (attn_logit_softcapping=30.0)"),
    ({"model_type": "gpt_oss"}, "has attention sinks (gpt_oss)"),
    ({"is_encoder_decoder": True}, "is an encoder-decoder"),
    ({"dual_chunk_attention_config": {"chunk_size": 64}}, "has dual chunk attention"),
]


@pytest.fixture
def refusal(model_path: Path, tmp_path: Path) -> Any:
    """What the engine and the preflight say, which must be one thing."""

    def start(engine: dict[str, Any], config: dict[str, Any], model: Path = model_path) -> str:
        import sglang

        given = {**OPTIONS, **engine, "model_path": str(model)}
        before = psutil.Process().children()
        with pytest.raises(ConfigError) as caught:
            sglang.Engine(**given, vortex=VortexConfig.model_validate({"module_name": FLOW, **config}))
        assert psutil.Process().children() == before
        flat = {f"vortex_{name}": value for name, value in {"module_name": FLOW, **config}.items()}
        file = tmp_path / "engine.json"
        file.write_text(json.dumps({**given, **flat}))
        said = inspect_engine_config(file, targets=GRAPH_ONLY).errors
        assert str(caught.value) == "; ".join(map(str, said))
        return str(caught.value)

    return start


@pytest.mark.parametrize(("engine", "part"), ENGINE, ids=[" ".join(map(str, e)) for e, _ in ENGINE])
def test_options_of_the_engine(engine: dict[str, Any], part: str, refusal: Any) -> None:
    assert part in refusal(engine, {})


@pytest.mark.parametrize(("config", "part"), CONFIG, ids=[" ".join(map(str, c)) for c, _ in CONFIG])
def test_fields_of_the_config(config: dict[str, Any], part: str, refusal: Any) -> None:
    assert part in refusal({}, config)


@pytest.mark.parametrize(("changes", "part"), MODEL, ids=[part for _, part in MODEL])
def test_models(
    changes: dict[str, Any], part: str, refusal: Any, model: PreTrainedModel, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**model.config.to_dict(), **changes}))
    said = refusal({}, {}, tmp_path)
    assert said.startswith("model_path: the model ")
    assert part in said


def test_mixed_batches_under_a_flow_that_saves(refusal: Any) -> None:
    engine = {"disable_radix_cache": True, "enable_mixed_chunk": True}
    assert refusal(engine, {"module_name": SAVING}).startswith("enable_mixed_chunk: must be off")


@pytest.mark.parametrize("rule", ENVIRONMENT, ids=lambda rule: rule.name)
def test_environment(rule: Any, refusal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rule.name, "1")
    assert refusal({}, {}) == f"{rule.name}: '1' is refused: {rule.reason}; unset it"


def test_everything_at_once(refusal: Any) -> None:
    said = refusal({"enable_pdmux": True, "page_size": 24}, {"impl_backend": "cuda", "layers_skip": [7]})
    keys = ["enable_pdmux", "vortex_impl_backend", "page_size", "vortex_layers_skip"]
    assert [part.partition(":")[0] for part in said.split("; ")] == [keys[0], "leave it out", *keys[1:]]


def test_flat_keys_and_text_are_refused_alike(model_path: Path, refusal: Any) -> None:
    import sglang

    said = refusal({}, {"layers_skip": [3]})
    config = {"module_name": FLOW, "layers_skip": [3]}
    forms: list[dict[str, Any]] = [
        {"enable_vortex_sparsity": True, **{f"vortex_{name}": value for name, value in config.items()}},
        {"vortex_config": json.dumps(config)},
    ]
    for form in forms:
        with pytest.raises(ConfigError) as caught:
            sglang.Engine(model_path=str(model_path), **OPTIONS, **form)
        assert str(caught.value) == said


def test_names_that_are_no_fields(model_path: Path) -> None:
    import sglang

    for key, part in (
        ("vortex_topk", "did you mean 'vortex_topk_val'?"),
        ("vortex_kv_int4", "not supported"),
    ):
        with pytest.raises(ConfigError, match=key) as caught:
            sglang.Engine(model_path=str(model_path), vortex_module_name=FLOW, **{key: 3}, **OPTIONS)
        assert part in str(caught.value)


def test_the_servers_command_line(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every default of SGLang is fine; what is refused is refused here too."""
    from sglang.srt.plugins import load_plugins

    load_plugins()
    from sglang.srt.server_args import prepare_server_args

    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    config = json.dumps({"module_name": FLOW, "block_size": 16, "max_seq_lens": 512})
    command = ["--model-path", str(model_path), "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--vortex-config", config]
    arguments = prepare_server_args(command)
    assert (arguments.page_size, arguments.context_length) == (16, 512)
    saving = [*command[:-1], config.replace(FLOW, SAVING), "--disable-radix-cache"]
    assert prepare_server_args(saving).disable_radix_cache
    with pytest.raises(SystemExit, match="enable_mixed_chunk: must be off"):
        prepare_server_args([*saving, "--enable-mixed-chunk"])
    with pytest.raises(SystemExit, match="enable_hierarchical_cache: is refused"):
        prepare_server_args([*command, "--enable-hierarchical-cache"])
