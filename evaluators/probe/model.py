"""The shapes of the probe model, as transformers and serving engines load them.

`gqa`: a Qwen3 with shared kv heads. `mla`: its twin with multi-head latent attention, a DeepSeek-V3 without
experts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shape = Literal["gqa", "mla"]
MODEL_TYPES: dict[str, Shape] = {"qwen3": "gqa", "deepseek_v3": "mla"}

LAYERS, HIDDEN, QUERY_HEADS, HEAD_DIM = 4, 256, 8, 64
ROPE_THETA = 1e5
MAX_LENGTH = 8192
GQA = {"intermediate_size": 768, "num_key_value_heads": 2}
# Half of a head's q and k turns with the position; the whole is as wide as v, as fused attention wants it.
MLA = {"intermediate_size": 704, "kv_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32}


def new_model(tokenizer: Any, shape: Shape = "gqa") -> PreTrainedModel:
    """A freshly initialised probe for training on right-padded sequences (see `causal`).

    Output projections are scaled down by the depth (GPT-2, section 2.3). A Qwen3 normalises q and k; the MLA
    projections start at unit variance instead, so that attention is as sharp from the start.
    """
    import torch

    model = _qwen3(tokenizer) if shape == "gqa" else _deepseek_v3(tokenizer)
    for name, weight in model.named_parameters():
        if weight.dim() != 2:
            continue
        std = 0.02
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std /= math.sqrt(2 * LAYERS)
        elif shape == "mla" and "self_attn" in name:
            std = weight.shape[1] ** -0.5
        torch.nn.init.normal_(weight, std=std)
    return model


def _qwen3(tokenizer: Any) -> PreTrainedModel:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_common(tokenizer), **GQA, head_dim=HEAD_DIM))


def _deepseek_v3(tokenizer: Any) -> PreTrainedModel:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        **_common(tokenizer),
        **MLA,
        num_key_value_heads=QUERY_HEADS,
        v_head_dim=HEAD_DIM,
        q_lora_rank=None,
        first_k_dense_replace=LAYERS,
        moe_layer_freq=1,  # SGLang asks for it
        num_mtp_layers=0,
    )
    return DeepseekV3ForCausalLM(config)


def _common(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": QUERY_HEADS,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": MAX_LENGTH,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attn_implementation": causal(),
    }


def causal() -> str:
    """The name of transformers' SDPA attention without a mask, which the fused kernels need.

    Right padding under a causal mask needs none; left-padded batches do: set `sdpa` for those.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("causal", sdpa_attention_forward)
    return "causal"
