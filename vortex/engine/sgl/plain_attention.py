"""What says that a model's attention is not plain, in its `config.json` or in a loaded layer. Plain is a
softmax over all earlier tokens, by the query's head and the kv head of its group alone. Vortex replaces that
attention and no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_SINKS = ("gpt_oss",)
_HYBRID = (
    "attn_type_list",
    "full_attention_interval",
    "hybrid_layer_pattern",
    "hybrid_override_pattern",
    "layers_block_type",
    "linear_attn_config",
    "mamba_d_state",
)
_OWN_SPARSE = ("index_topk", "sparse_attention_config", "compress_ratios")


def faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is not plain, in words, from the config of the model or of its text part."""
    if config.get("is_encoder_decoder"):
        yield "is an encoder-decoder: its cross attention reads another sequence"
    elif config.get("cross_attention_layers"):
        yield "has cross attention (cross_attention_layers), which reads another sequence"
    kinds = config.get("layer_types") or ()
    others = sorted({str(kind) for kind in kinds} - {"full_attention"})
    if others:
        yield f"has layers of other kinds than full attention (layer_types: {', '.join(others)})"
    elif any(config.get(key) for key in _HYBRID):
        named = next(key for key in _HYBRID if config.get(key))
        yield f"has layers of other kinds than full attention ({named})"
    elif not kinds and config.get("use_sliding_window") is not False:
        for key in ("sliding_window", "sliding_window_size", "window_size", "attention_chunk_size"):
            if config.get(key):
                yield f"attends to the last {config[key]} tokens in some layers ({key})"
                break
    if config.get("dual_chunk_attention_config"):
        yield "has dual chunk attention (dual_chunk_attention_config), which rotates keys by chunks"
    if config.get("attn_logit_softcapping"):
        yield f"caps its attention logits (attn_logit_softcapping={config['attn_logit_softcapping']})"
    sinks = [
        key for key in ("add_swa_attention_sink_bias", "add_full_attention_sink_bias") if config.get(key)
    ]
    if config.get("model_type") in _SINKS or sinks:
        yield f"has attention sinks ({sinks[0] if sinks else config['model_type']})"
    for key in _OWN_SPARSE:
        if config.get(key):
            yield f"has a sparse attention of its own ({key})"
            break
    value, key_dim = config.get("v_head_dim"), config.get("head_dim")
    if not config.get("kv_lora_rank") and value and key_dim and value != key_dim:
        yield f"has values of {value} features and keys of {key_dim}: both must be equally wide"


def layer_faults(layer: Any) -> list[str]:
    """The same of one of SGLang's attention layers (`RadixAttention`), once its weights are loaded. May wait
    for the device."""
    scales = (layer.k_scale, layer.v_scale, layer.k_scale_float, layer.v_scale_float)
    wrong = {
        "a cap on the logits": layer.logit_cap,
        "a temperature by length": layer.xai_temperature_len > 0,
        "a sliding window": layer.sliding_window_size is not None and layer.sliding_window_size > -1,
        "cross attention": layer.is_cross_attention,
        "scales of an fp8 KV cache": any(scale is not None and float(scale) != 1 for scale in scales),
    }
    return [name for name, used in wrong.items() if used]
