"""Shapes of one layer's attention in models that are served."""

from __future__ import annotations

from dataclasses import dataclass

from vortex.graph import Geometry


@dataclass(frozen=True)
class Model:
    """Query heads of a kv head, kv heads, and the head's features, or those of an MLA latent and of its RoPE
    part."""

    group: int
    heads: int
    head_dim: int = 128
    latent: tuple[int, int] | None = None

    def geometry(self, block_size: int) -> Geometry:
        if self.latent is not None:
            return Geometry.mla(block_size, *self.latent, self.group)
        return Geometry(block_size, self.head_dim, self.group)


MODELS = {
    "Qwen3-8B": Model(4, 8),
    "Qwen3-1.7B": Model(2, 8),
    "Llama-3.1-8B": Model(4, 8),
    "GLM-4.7-Flash": Model(20, 1, latent=(512, 64)),
    "probe": Model(4, 2, 64),
    "probe, MLA": Model(8, 1, latent=(128, 32)),
}
