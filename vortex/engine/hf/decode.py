"""Decoding stored prompts through a graph: what a candidate pays for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from vortex.config import VortexConfig
from vortex.engine.hf.geometry import ModelShape, check_config, check_graph, check_lengths
from vortex.engine.hf.loop import Stop, decode_loop
from vortex.engine.hf.store import PromptStore
from vortex.errors import ConfigError
from vortex.graph.model import FlowGraph
from vortex.runtime.default_target import default_target
from vortex.runtime.hooks import Hooks
from vortex.runtime.session import DecodeSession
from vortex.runtime.traffic import Traffic


@dataclass(frozen=True)
class DecodeResult:
    """Per decoded row, in the order asked for: its new tokens (the prefill's first one included), and the
    mean bytes a decode step of the whole model moves in attention, beside those of dense attention.

    A row that ended with the prefill's token is priced at the step it would have taken.
    """

    tokens: tuple[tuple[int, ...], ...]
    bytes_per_step: tuple[float, ...]
    dense_bytes_per_step: tuple[float, ...]


def decode(
    model: PreTrainedModel,
    store: PromptStore,
    rows: Sequence[int] | None,
    graph: FlowGraph | None,
    config: VortexConfig | None = None,
    max_new_tokens: int | Sequence[int] = 32,
    stop: Stop | None = None,
    *,
    hooks: Hooks | None = None,
    target: str | None = None,
) -> DecodeResult:
    """Greedy decoding of the prompts `rows` of a store (None: all) as one batch; `graph` None is dense. Steps
    are sparse wherever the policy says so, which is what is priced: there is no crossover.

    `max_new_tokens` counts the prefill's token and is one number, or one per row. `stop(i, tokens)` sees
    the place `i` of the row in `rows`. Raises ConfigError where the store, the model and the settings do
    not fit together.
    """
    config = (config or VortexConfig()).model_copy(update={"dense_crossover": False})
    rows = range(len(store)) if rows is None else rows
    limits = [max_new_tokens] * len(rows) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    shape = ModelShape.of(model)
    check_config(config, shape, target or default_target(model.device.type))
    check_graph(graph, shape)
    if len(set(rows)) < len(rows):
        raise ConfigError("a prompt is asked for twice: its new tokens have one place in the store")
    _check_store(store, rows, limits, shape, str(model.dtype))
    lengths = np.array([len(store.prompts[row].tokens) for row in rows], dtype=np.int64)
    check_lengths((lengths + limits).tolist(), config, shape)
    if len(rows) == 0:
        return DecodeResult((), (), ())
    pages = store.pages(rows)
    session = DecodeSession(store.pools, pages, lengths, shape.group, graph, config, target, hooks)
    new = decode_loop(model, session, [store.prompts[row].first for row in rows], limits, stop)
    traffic = Traffic(graph, session.geometry, config, shape.layers, shape.heads)
    seq_lens = [
        length + np.arange(1, max(2, len(tokens))) for length, tokens in zip(lengths, new, strict=True)
    ]
    return DecodeResult(
        tuple(tuple(tokens) for tokens in new),
        tuple(float(traffic.steps(seq_len).mean()) for seq_len in seq_lens),
        tuple(float(traffic.dense(seq_len).mean()) for seq_len in seq_lens),
    )


def _check_store(
    store: PromptStore, rows: Sequence[int], limits: Sequence[int], shape: ModelShape, dtype: str
) -> None:
    meta = store.meta
    held = (meta.layers, meta.heads, meta.group, meta.head_dim, meta.kv_lora_rank, f"torch.{meta.dtype}")
    wanted = (shape.layers, shape.heads, shape.group, shape.head_dim, shape.kv_lora_rank, dtype)
    if held != wanted:
        raise ConfigError(
            f"{store.path} was built by another model: (layers, kv heads, group, head_dim, kv_lora_rank, "
            f"dtype) are {held}, not {wanted}"
        )
    for row, limit in zip(rows, limits, strict=True):
        if limit < 1:
            raise ConfigError(f"max_new_tokens of prompt {row} is {limit}: ask for at least 1")
        if limit > store.room(row):
            raise ConfigError(
                f"prompt {row} has room for {store.room(row)} new tokens, {limit} were asked for"
            )
