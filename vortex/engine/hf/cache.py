"""The cache that a transformers model updates, backed by the paged pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vortex.config import VortexConfig
from vortex.engine.hf.attention import updated_layer
from vortex.engine.hf.geometry import ModelShape, check_config, check_graph, check_lengths
from vortex.engine.hf.latent import watch
from vortex.errors import ConfigError
from vortex.graph.model import FlowGraph
from vortex.runtime.default_target import default_target
from vortex.runtime.hooks import Hooks
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession


class VortexCache(Cache):  # type: ignore[misc]
    """`past_key_values` of one batch: prefilled densely (left padding is squeezed out), decoded through a
    graph.

    The model must run with the attention implementation "vortex". One cache serves one `generate()`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        graph: FlowGraph | None,
        config: VortexConfig | None = None,
        *,
        target: str | None = None,
        hooks: Hooks | None = None,
        session: DecodeSession | None = None,
    ) -> None:
        self.shape = ModelShape.of(model)
        self.graph, self.config, self.target, self.hooks = graph, config or VortexConfig(), target, hooks
        check_config(self.config, self.shape, target or default_target(model.device.type))
        check_graph(graph, self.shape)
        if self.shape.latent is not None:
            watch(model, self.shape.layers)
        self.session = session
        self.pools: list[KVPool] = []
        self.pages: PageTable | None = None
        self.prompt_lengths: np.ndarray | None = None
        super().__init__(layers=[VortexLayer(self, index) for index in range(self.shape.layers)])
        self.layer_class_to_replicate = None

    @classmethod
    def of(cls, model: PreTrainedModel, session: DecodeSession) -> VortexCache:
        """A cache for a batch that is already in the session's pools; `resume` before every step."""
        return cls(model, None, session.config, session=session)

    def resume(self) -> None:
        """Continue after the tokens that the session holds, whichever requests it still has."""
        assert self.session is not None
        for layer in self.layers:
            layer.resume(int(self.session.lengths.max()))

    def prefilled(self, index: int, parts: Sequence[torch.Tensor], lengths: np.ndarray) -> None:
        """Take what one layer stores, K and V or latents, each `[batch, heads, tokens, head_dim]`, of which
        the last `lengths [batch]` tokens are real.
        """
        heads = self.shape.heads
        if index == 0:
            counts = np.repeat(lengths // PAGE + 1, heads)
            self.pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
            self.prompt_lengths, self.pools = lengths, []
        assert self.pages is not None
        pool = self.shape.pool(int(self.pages.counts.sum()), parts[0].dtype, parts[0].device)
        for row, start in enumerate(self.pages.pages[:, 0] * PAGE):
            length = int(lengths[row // heads])
            real = (part[row // heads, row % heads, part.shape[2] - length :] for part in parts)
            pool.write(slice(int(start), int(start) + length), *real)
        self.pools.append(pool)

    def begin_step(self) -> None:
        """Plan the next decode step; the first layer calls it."""
        if self.session is None:
            if len(self.pools) != self.shape.layers:
                raise ConfigError(
                    "decode before prefill: run the prompt through the model with this cache first"
                )
            assert self.pages is not None
            assert self.prompt_lengths is not None
            self.session = DecodeSession(
                self.pools,
                self.pages,
                self.prompt_lengths,
                self.shape.group,
                self.graph,
                self.config,
                self.target,
                self.hooks,
                growable=True,
            )
        check_lengths([int(self.session.lengths.max()) + 1], self.config, self.shape)
        self.session.begin_step()


class VortexLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a `VortexCache`. `seen` counts the tokens of the padded batch."""

    def __init__(self, owner: VortexCache, index: int) -> None:
        super().__init__()
        self.owner, self.index, self.seen = owner, index, 0

    def resume(self, seen: int) -> None:
        """Continue after tokens that are already in the session's pools."""
        self.seen, self.is_initialized = seen, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep nothing yet: `attend`, which knows the padding, stores what is real."""
        tokens = key_states.shape[-2]
        if self.seen and tokens != 1:
            raise ConfigError(
                f"{tokens} tokens after the prompt: prefill at once, then decode one token a step"
            )
        self.dtype, self.device = key_states.dtype, key_states.device
        self.seen += tokens
        self.is_initialized = True
        updated_layer.set(self)
        return key_states, value_states

    def get_seq_length(self, *args: Any) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        tokens = query_length if isinstance(query_length, int) else len(query_length)
        return self.seen + tokens, 0

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attention for the tokens that `update` has just announced: `[batch, tokens, query heads,
        head_dim]`.
        """
        latent = self.owner.shape.latent
        parts = (key, value) if latent is None else (latent.new_latents(key),)
        if self.seen == query.shape[2]:
            self.owner.prefilled(self.index, parts, _real_tokens(mask, key))
            out: torch.Tensor = sdpa_attention_forward(
                module, query, key, value, mask, scaling=scale, **kwargs
            )[0]
            return out
        if self.index == 0:
            self.owner.begin_step()
        session = self.owner.session
        assert session is not None
        q = query[:, :, 0]
        k, *v = (part[:, :, 0] for part in parts)
        if latent is None:
            return session.attend(self.index, q, k, v[0], scale)[:, None]
        out = session.attend(self.index, latent.absorb(module, q), k, None, scale)
        return latent.expand(module, out)[:, None]

    def crop(self, *args: Any) -> None:
        raise ConfigError("a VortexCache cannot be cropped: assisted decoding is not supported")

    def _refuse(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError(
            "a VortexCache cannot be reordered: beam search and several sequences are not supported"
        )

    reorder_cache = batch_repeat_interleave = batch_select_indices = _refuse


def _real_tokens(mask: torch.Tensor | None, key: torch.Tensor) -> np.ndarray:
    """Tokens of each row that are not left padding, from the mask of the last query. Raises on right
    padding.
    """
    batch, _, tokens, _ = key.shape
    if mask is None:
        return np.full(batch, tokens, dtype=np.int64)
    last = mask[:, 0, -1, :tokens]
    last = (last if last.dtype == torch.bool else last > -1.0).cpu()
    lengths = last.sum(-1)
    if not bool((last == (torch.arange(tokens) >= tokens - lengths[:, None])).all()):
        raise ConfigError("prompts must be padded on the left: set tokenizer.padding_side = 'left'")
    return lengths.expand(batch).numpy().astype(np.int64)
