"""The shape of a model's attention, from its `config.json` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vortex.engine.sgl.plain_attention import faults
from vortex.errors import ConfigError
from vortex.graph.geometry import Geometry


@dataclass(frozen=True)
class ModelShape:
    """Layers, query and kv heads, features of a head, longest sequence in tokens. MLA models have the two
    parts of their latent instead of kv heads and `head_dim`. `faults`: why its attention cannot be sparse."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0
    faults: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of flow that decodes the model."""
        return "mla" if self.kv_lora_rank else "gqa"

    def geometry(self, block_size: int, ranks: int = 1) -> Geometry:
        """What a flow sees on one of `ranks` tensor-parallel ranks. SGLang repeats kv heads where there are
        fewer than ranks. Raises ConfigError where the heads cannot be split."""
        if self.heads % ranks:
            raise ConfigError(f"the model's {self.heads} query heads cannot be split over {ranks} ranks")
        heads = self.heads // ranks
        if self.kv_lora_rank:
            return Geometry.mla(block_size, self.kv_lora_rank, self.qk_rope_head_dim, heads)
        return Geometry(block_size, self.head_dim, heads // max(1, self.kv_heads // ranks))


def read_shape(folder: Path, changes: Mapping[str, Any] | None = None) -> ModelShape | None:
    """The shape of the model in `folder`, with these `changes` of its config; None where there is no
    `config.json`, as for a model's name on a hub. Raises ConfigError for a file that does not describe a
    decoder."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text())
        return shape_of({**config, **changes} if changes and isinstance(config, Mapping) else config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} does not describe a decoder: {error}") from None


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape that the content of a `config.json` says. Raises ConfigError where it is no decoder's."""
    if not isinstance(config, Mapping):
        raise ConfigError("the model's config does not describe a decoder: it is no JSON object")
    data = {**config, **(config.get("text_config") or {})}
    try:
        heads = int(data["num_attention_heads"])
        return ModelShape(
            layers=int(data["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(data.get("num_key_value_heads") or heads),
            head_dim=int(data.get("head_dim") or data["hidden_size"] // heads),
            context=int(data["max_position_embeddings"]),
            kv_lora_rank=int(data.get("kv_lora_rank") or 0),
            qk_rope_head_dim=int(data.get("qk_rope_head_dim") or 0),
            faults=tuple(faults(data)),
        )
    except (ValueError, KeyError, TypeError) as error:
        unknown = f"has a config that does not describe a decoder: {type(error).__name__}: {error}"
        raise ConfigError(f"the model {next(faults(data), unknown)}") from None
