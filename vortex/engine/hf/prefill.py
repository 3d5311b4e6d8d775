"""Dense prefill of single prompts with a model's own attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from vortex.engine.hf.attention import NAME, attention_implementation
from vortex.engine.hf.cache import VortexCache


@dataclass(frozen=True)
class Prefilled:
    """Per layer what its pool stores, K and V or latents, each `[heads, tokens, head_dim]`; `first`, the
    greedy token that follows.
    """

    layers: tuple[tuple[torch.Tensor, ...], ...]
    first: int


class _Recorder(VortexCache):
    """Keeps what the layers of one prompt store as it comes."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model, None)
        self.kept: list[tuple[torch.Tensor, ...]] = []

    def prefilled(self, index: int, parts: Sequence[torch.Tensor], lengths: np.ndarray) -> None:
        self.kept.append(tuple(part[0] for part in parts))


@torch.inference_mode()
def prefill(model: PreTrainedModel, prompt: Sequence[int]) -> Prefilled:
    """Run one prompt (batch 1 is the fastest way on a CPU)."""
    cache = _Recorder(model)
    ids = torch.tensor([list(prompt)], device=model.device)
    with attention_implementation(model, NAME):
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return Prefilled(tuple(cache.kept), int(logits[0, -1].argmax()))
