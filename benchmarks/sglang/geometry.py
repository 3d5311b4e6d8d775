"""Models that are only a shape: SGLang fills them with dummy weights, which is all that speed needs."""

from __future__ import annotations

import json
from pathlib import Path

_QWEN3: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
SHAPES: dict[str, dict[str, object]] = {
    "Qwen3-0.6B": {**_QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "Qwen3-1.7B": {**_QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
}
VOCABULARY = range(1000, 150_000)
"""Ids that random prompts are drawn from."""


def write_model(name: str, folder: Path) -> Path:
    """A model folder with nothing but the config of `SHAPES[name]`; load it with `load_format="dummy"`."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(SHAPES[name], indent=2))
    return path
