"""Greedy decoding of a batch whose prompts are in the pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from vortex.engine.hf.attention import NAME, attention_implementation
from vortex.engine.hf.cache import VortexCache
from vortex.engine.hf.geometry import eos_tokens
from vortex.runtime.session import DecodeSession

Stop = Callable[[int, list[int]], bool]
"""Told the number of a request and its new tokens so far; True ends the request."""


@torch.inference_mode()
def decode_loop(
    model: PreTrainedModel,
    session: DecodeSession,
    first: Sequence[int],
    limits: Sequence[int],
    stop: Stop | None = None,
) -> list[list[int]]:
    """New tokens of every request, the `first` ones (from the prefill) included.

    A request ends at an end token (which is kept), at its limit, or when `stop` says so; the others go on
    without it.
    """
    eos = eos_tokens(model)
    new = [[token] for token in first]

    def ended(request: int) -> bool:
        tokens = new[request]
        done = tokens[-1] in eos or len(tokens) >= limits[request]
        return done or (stop is not None and stop(request, tokens))

    alive = np.array([request for request in range(len(new)) if not ended(request)], dtype=np.int64)
    session.keep(alive)
    cache = VortexCache.of(model, session)
    with attention_implementation(model, NAME):
        while len(alive):
            last = torch.tensor([[new[request][-1]] for request in alive], device=model.device)
            positions = torch.from_numpy(session.lengths[:, None]).to(model.device)
            cache.resume()
            logits = model(
                input_ids=last, position_ids=positions, past_key_values=cache, use_cache=True
            ).logits
            for request, token in zip(alive, logits[:, -1].argmax(-1).tolist(), strict=True):
                new[request].append(token)
            going = np.array([not ended(request) for request in alive])
            if not going.all():
                alive = alive[going]
                session.keep(np.flatnonzero(going))
    return new
