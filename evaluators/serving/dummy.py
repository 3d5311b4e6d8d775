"""Models that are only a geometry: a folder with a `config.json`, for `load_format="dummy"`. SGLang fills the
weights with random numbers, which costs a decode step what real ones do."""

from __future__ import annotations

import json
from pathlib import Path

from evaluators.serving.errors import ServingError
from vortex.errors import unknown

_QWEN3: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 28,
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
GEOMETRIES: dict[str, dict[str, object]] = {
    "qwen3-0.6b": {**_QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b": {**_QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
    "qwen3-4b": {
        **_QWEN3,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
    "qwen3-8b": {
        **_QWEN3,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}


def write_geometry(name: str, folder: Path) -> Path:
    """The model folder of a geometry, inside `folder`. Raises ServingError for an unknown name."""
    try:
        config = GEOMETRIES[name.lower()]
    except KeyError:
        raise ServingError(unknown("geometry", name, GEOMETRIES)) from None
    path = folder / name.lower()
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return path
