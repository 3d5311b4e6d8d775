"""Multi-head latent attention (MLA, DeepSeek-V2, arXiv 2405.04434) with the absorbed query.

A token is cached as its latent `[kv_c | k_pe]`. With `kv_b_proj` split per head into W_UK and W_UV, the query
`[q_nope W_UK | q_pe]` times a latent is the logit of the expanded key, and attention over kv_c times W_UV is
the head's output: keys and values of cached tokens are never expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vortex.errors import ConfigError

_expanded: ContextVar[torch.Tensor | None] = ContextVar("_expanded", default=None)
"""What the `kv_b_proj` that ran last was given: kv_c of the tokens whose attention comes next."""


@dataclass(frozen=True)
class LatentShape:
    """Widths of kv_c and k_pe, and of the parts of a head that `kv_b_proj` makes of kv_c."""

    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int

    @classmethod
    def of(cls, config: Any) -> LatentShape | None:
        """Of a text config; None where its model does not cache latents."""
        if not getattr(config, "kv_lora_rank", None):
            return None
        return cls(config.kv_lora_rank, config.qk_rope_head_dim, config.qk_nope_head_dim, config.v_head_dim)

    @property
    def width(self) -> int:
        return self.kv_lora_rank + self.qk_rope_head_dim

    def new_latents(self, key: torch.Tensor) -> torch.Tensor:
        """Latents `[batch, 1, tokens, width]` of the tokens whose expanded `key [batch, heads, tokens, nope +
        rope]` attention is given. The model must be watched.
        """
        kv_c = _expanded.get()
        _expanded.set(None)
        assert kv_c is not None
        batch, _, tokens, _ = key.shape
        k_pe = key[:, :1, :, self.qk_nope_head_dim :]
        return torch.cat((kv_c.reshape(batch, 1, tokens, self.kv_lora_rank), k_pe), -1)

    def absorb(self, attention: nn.Module, query: torch.Tensor) -> torch.Tensor:
        """The query of every head against latents: `[batch, heads, nope + rope]` -> `[batch, heads,
        width]`.
        """
        nope, rope = query[..., : self.qk_nope_head_dim], query[..., self.qk_nope_head_dim :]
        w_uk = self._heads(attention)[:, : self.qk_nope_head_dim]
        return torch.cat(((nope.transpose(0, 1) @ w_uk).transpose(0, 1), rope), -1)

    def expand(self, attention: nn.Module, out: torch.Tensor) -> torch.Tensor:
        """Attention over kv_c as the values of the heads: `[batch, heads, kv_lora_rank]` -> `[batch, heads,
        v_head_dim]`.
        """
        w_uv = self._heads(attention)[:, self.qk_nope_head_dim :]
        return (out.transpose(0, 1) @ w_uv.transpose(1, 2)).transpose(0, 1)

    def _heads(self, attention: nn.Module) -> torch.Tensor:
        """W_UK and W_UV of each head, `[heads, nope + v_head_dim, kv_lora_rank]`: a view."""
        weight = attention.get_parameter("kv_b_proj.weight")
        return weight.view(-1, self.qk_nope_head_dim + self.v_head_dim, self.kv_lora_rank)


def watch(model: nn.Module, layers: int) -> None:
    """Let `new_latents` know what the model's `layers` attention modules expand; any number of times.

    It is the input of `kv_b_proj` rather than the output of `kv_a_layernorm`: some models scale between the
    two. ConfigError where a layer has no plain `kv_b_proj` whose weight can be absorbed.
    """
    found = list(_projections(model))
    if len(found) != layers:
        raise ConfigError(
            f"{type(model).__name__} has a kv_lora_rank, but {len(found)} modules with kv_a_layernorm and "
            f"kv_b_proj for {layers} layers: its attention is not one this engine knows"
        )
    for projection in found:
        if type(projection) is not nn.Linear or projection.bias is not None:
            raise ConfigError(
                f"kv_b_proj is {projection}: only a linear layer without bias can be absorbed; load the "
                f"model unquantised and merge its adapters"
            )
        if _keep_input not in projection._forward_pre_hooks.values():
            projection.register_forward_pre_hook(_keep_input)


def _projections(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if getattr(module, "kv_a_layernorm", None) is not None and hasattr(module, "kv_b_proj"):
            yield module.get_submodule("kv_b_proj")


def _keep_input(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    _expanded.set(args[0])
