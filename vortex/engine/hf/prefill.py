"""Dense prefill of single prompts with a model's own attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

from vortex.engine.hf.attention import attention_implementation
from vortex.engine.hf.geometry import ModelShape


@dataclass(frozen=True)
class Prefilled:
    """`keys` and `values` per layer, `[heads, tokens, head_dim]`; `first`, the greedy token that follows."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    first: int


@torch.inference_mode()
def prefill(model: PreTrainedModel, prompt: Sequence[int]) -> Prefilled:
    """Run one prompt (batch 1 is the fastest way on a CPU)."""
    shape = ModelShape.of(model)
    cache = DynamicCache()
    ids = torch.tensor([list(prompt)], device=model.device)
    with attention_implementation(model, "sdpa"):
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    layers = cache.layers[: shape.layers]
    return Prefilled(
        tuple(layer.keys[0] for layer in layers),
        tuple(layer.values[0] for layer in layers),
        int(logits[0, -1].argmax()),
    )
