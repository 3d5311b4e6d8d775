"""The probe model's shape: a Qwen3 that transformers and serving engines load as `Qwen3ForCausalLM`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

LAYERS, HIDDEN, MLP = 4, 256, 768
QUERY_HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
ROPE_THETA = 1e5
MAX_LENGTH = 8192


def new_model(tokenizer: Any) -> Qwen3ForCausalLM:
    """A freshly initialised probe; output projections are scaled down by the depth (GPT-2, section 2.3)."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=QUERY_HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        rms_norm_eps=1e-6,
        max_position_embeddings=MAX_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            deep = name.endswith(("o_proj.weight", "down_proj.weight"))
            torch.nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)
    return model
