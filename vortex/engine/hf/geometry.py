"""The shape of a decoder of transformers, as far as the cache is concerned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel

from vortex.config import VortexConfig
from vortex.errors import ConfigError


@dataclass(frozen=True)
class ModelShape:
    """Layers, kv heads, query heads of a kv head, features of a head, longest sequence in tokens."""

    layers: int
    heads: int
    group: int
    head_dim: int
    context: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelShape:
        """Read a model's config. ConfigError for layers that are not full attention with a K/V cache."""
        config = model.config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        if kinds or getattr(config, "kv_lora_rank", None):
            kind = ", ".join(sorted(kinds)) or "multi-head latent attention"
            raise ConfigError(f"{type(model).__name__} has {kind}; only full attention layers are supported")
        queries = config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or queries
        dim = getattr(config, "head_dim", None) or config.hidden_size // queries
        return cls(config.num_hidden_layers, heads, queries // heads, dim, config.max_position_embeddings)


def check_config(config: VortexConfig, shape: ModelShape) -> None:
    """Refuse what this engine cannot honour. Raises ConfigError with the reason."""
    if config.attention_backend != "flashinfer" or config.impl_backend != "triton" or config.use_tensor_core:
        raise ConfigError(
            "attention_backend, impl_backend and use_tensor_core choose GPU kernels of the SGLang engine"
        )
    if config.layers_skip and config.layers_skip[-1] >= shape.layers:
        last = shape.layers - 1
        raise ConfigError(
            f"layers_skip names layer {config.layers_skip[-1]}, but the model has layers 0 to {last}"
        )


def check_lengths(lengths: Iterable[int], config: VortexConfig, shape: ModelShape) -> None:
    """Refuse sequences (prompt and new tokens) above `max_seq_lens` or the model's context."""
    longest = max(lengths, default=0)
    limit = shape.context if config.max_seq_lens == -1 else min(config.max_seq_lens, shape.context)
    if longest > limit:
        raise ConfigError(
            f"a sequence of {longest} tokens exceeds the limit of {limit}: shorten it or max_new_tokens"
        )


def eos_tokens(model: PreTrainedModel) -> frozenset[int]:
    """The tokens that end a sequence, by the model's generation config."""
    eos = model.generation_config.eos_token_id if model.generation_config else None
    if eos is None:
        return frozenset()
    return frozenset([eos] if isinstance(eos, int) else eos)
