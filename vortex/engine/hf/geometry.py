"""The shape of a decoder of transformers, as far as the cache is concerned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from vortex.config import VortexConfig
from vortex.engine.hf.latent import LatentShape
from vortex.errors import ConfigError
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.runtime.pool import KVPool

_FLOW = {"gqa": "a vFlow (k and v)", "mla": "a vFlowMLA (latent)"}


@dataclass(frozen=True)
class ModelShape:
    """Layers, kv heads, query heads of a kv head, features of a head, longest sequence in tokens.

    MLA (`latent` is set): one kv head for all query heads, whose features are those of a latent.
    """

    layers: int
    heads: int
    group: int
    head_dim: int
    context: int
    latent: LatentShape | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelShape:
        """Read a model's config. ConfigError for layers that are not full attention with a cache."""
        config = model.config.get_text_config(decoder=True)
        types = getattr(config, "layer_types", None) or ()
        if kinds := sorted(set(types) - {"full_attention"}):
            raise ConfigError(
                f"{type(model).__name__} has {', '.join(kinds)}; only full attention layers are supported"
            )
        layers, queries = config.num_hidden_layers, config.num_attention_heads
        window = None if types else getattr(config, "sliding_window", None)
        context = config.max_position_embeddings
        context = min(context, window or context)  # within its window a model attends to everything
        if latent := LatentShape.of(config):
            return cls(layers, 1, queries, latent.width, context, latent)
        heads = getattr(config, "num_key_value_heads", None) or queries
        dim = getattr(config, "head_dim", None) or config.hidden_size // queries
        return cls(layers, heads, queries // heads, dim, context)

    @property
    def kind(self) -> str:
        """The kind of graph that decodes the model."""
        return "mla" if self.latent else "gqa"

    @property
    def kv_lora_rank(self) -> int:
        """0 for K/V heads."""
        return self.latent.kv_lora_rank if self.latent else 0

    def geometry(self, block_size: int) -> Geometry:
        """The sizes that a flow for this model is traced at."""
        if self.latent is None:
            return Geometry(block_size, self.head_dim, self.group)
        return Geometry.mla(block_size, self.kv_lora_rank, self.head_dim - self.kv_lora_rank, self.group)

    @property
    def scale(self) -> float:
        """Of the logits, where the model sets no other: one over the root of a query head's features (MLA:
        before absorption)."""
        latent = self.latent
        features = latent.qk_nope_head_dim + latent.qk_rope_head_dim if latent else self.head_dim
        return float(features**-0.5)

    def pool(self, pages: int, dtype: torch.dtype, device: torch.device) -> KVPool:
        """An empty pool for one layer of the model."""
        return KVPool.allocate(pages, self.head_dim, dtype, device, self.kv_lora_rank)


def check_graph(graph: FlowGraph | None, shape: ModelShape) -> None:
    """Refuse a flow for the other kind of cache."""
    if graph is not None and graph.kind != shape.kind:
        raise ConfigError(
            f"the flow is {_FLOW[graph.kind]}, but the model needs {_FLOW[shape.kind]}: choose one that is"
        )


def check_config(config: VortexConfig, shape: ModelShape, target: str) -> None:
    """Refuse what this engine cannot honour on a target. Raises ConfigError with the reason."""
    if config.attention_backend != "flashinfer":
        raise ConfigError("attention_backend chooses a kernel of the SGLang engine: leave it out here")
    if config.impl_backend != "triton":
        raise ConfigError(
            "impl_backend='cuda' is not supported, kernels are generated in Triton: use 'triton'"
        )
    if config.use_tensor_core and target != "triton":
        raise ConfigError(
            f"use_tensor_core: the {target} target generates no kernels; use the target 'triton'"
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
