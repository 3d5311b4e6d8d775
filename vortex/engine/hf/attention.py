"""The attention function that transformers calls under the name `vortex`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from vortex.errors import ConfigError

if TYPE_CHECKING:
    from vortex.engine.hf.cache import VortexLayer

NAME = "vortex"

updated_layer: ContextVar[VortexLayer | None] = ContextVar("updated_layer", default=None)
"""The cache layer whose `update` ran last. An attention function is not handed the cache, but every model
updates the cache just before it calls the function.
"""


def vortex_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`query [batch, query heads, tokens, head_dim]`, `key` and `value` of the new tokens only: output
    `[batch, tokens, query heads, head_dim]`. Prefill is dense; a decode step goes through the cache's
    session.
    """
    layer = updated_layer.get()
    updated_layer.set(None)
    if layer is None:
        raise ConfigError(
            "attention 'vortex' needs past_key_values=VortexCache(...): pass one with use_cache=True"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return layer.attend(module, query, key, value, attention_mask, scale, **kwargs), None


# A name registered without a mask gets none at all, and left padding would be attended to.
AttentionInterface.register(NAME, vortex_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def attention_implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run a model with another attention function, and put its own back."""
    before = model.config._attn_implementation
    if before == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
