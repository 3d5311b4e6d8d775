"""The numbers that a graph's symbols stand for on one model and one block size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SYMBOLS = ("block_size", "head_dim", "group", "kv_lora_rank", "qk_rope_head_dim")


@dataclass(frozen=True)
class Geometry:
    """Tokens a block, features a head, query heads a kv head; for MLA the two parts of the latent instead of
    `head_dim`, which is then their sum."""

    block_size: int = 16
    head_dim: int = 128
    group: int = 4
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0

    def __post_init__(self) -> None:
        for name in ("block_size", "head_dim", "group"):
            value = getattr(self, name)
            if not 1 <= value <= 65536:
                raise ValueError(f"{name} must be between 1 and 65536, got {value}")
        if self.kv_lora_rank < 0 or self.qk_rope_head_dim < 0:
            raise ValueError("kv_lora_rank and qk_rope_head_dim must not be negative")
        if self.kv_lora_rank and self.head_dim != self.kv_lora_rank + self.qk_rope_head_dim:
            raise ValueError("the head_dim of an MLA geometry is kv_lora_rank + qk_rope_head_dim")

    @classmethod
    def mla(cls, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int, group: int) -> Geometry:
        return cls(block_size, kv_lora_rank + qk_rope_head_dim, group, kv_lora_rank, qk_rope_head_dim)

    @property
    def kind(self) -> str:
        """The kind of flow that serves it."""
        return "mla" if self.kv_lora_rank else "gqa"

    def bindings(self) -> Mapping[str, int]:
        """Symbol -> value; the symbols of MLA only where the geometry has them."""
        bound = {"block_size": self.block_size, "head_dim": self.head_dim, "group": self.group}
        if self.kv_lora_rank:
            bound |= {"kv_lora_rank": self.kv_lora_rank, "qk_rope_head_dim": self.qk_rope_head_dim}
        return bound
