"""Requests for an engine: random prompts, arrival times, and when each answer's tokens came back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from evaluators.serving.errors import ServingError


class RawEngine(Protocol):
    """What is used of `sglang.Engine`."""

    loop: asyncio.AbstractEventLoop

    def async_generate(self, **arguments: Any) -> Awaitable[AsyncIterator[Mapping[str, Any]]]: ...

    def flush_cache(self) -> Any: ...

    def get_server_info(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Event:
    """`tokens` new tokens had come back `seconds` after the first request was due."""

    seconds: float
    tokens: int


@dataclass(frozen=True)
class Trace:
    """One request. `due`, `sent`: seconds; the first request is due at 0. Events are in order, the first is
    the first token's. retractions: how often it lost its place in the KV cache."""

    due: float
    sent: float
    events: tuple[Event, ...]
    retractions: int

    @property
    def first(self) -> Event:
        return self.events[0]

    @property
    def last(self) -> Event:
        return self.events[-1]


def random_prompts(count: int, tokens: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Prompts of random token ids, the same for the same arguments. The lowest and highest ids, where special
    tokens are, are left out."""
    generator = np.random.default_rng([seed, count, tokens])
    low, high = min(1000, vocabulary // 10), vocabulary - max(1, vocabulary // 50)
    return generator.integers(low, high, size=(count, tokens)).tolist()  # type: ignore[no-any-return]


def poisson_arrivals(count: int, rate: float, seed: int) -> list[float]:
    """Seconds at which requests are due, at `rate` requests a second on average; the first one at 0."""
    gaps = np.random.default_rng([seed, count]).exponential(1 / rate, size=count)
    gaps[0] = 0.0
    return np.cumsum(gaps).tolist()  # type: ignore[no-any-return]


def replay(
    engine: RawEngine, prompts: Sequence[Sequence[int]], new: int, *, due: Sequence[float] | None = None,
    every: int = 1,
) -> list[Trace]:  # fmt: skip
    """Send each prompt when it is due (all at once by default) and wait for exactly `new` greedy tokens of
    each. An event is recorded for the first token, then after each `every` tokens, and for the last."""
    times = [0.0] * len(prompts) if due is None else due

    async def run() -> list[Trace]:
        start = time.perf_counter()
        return await asyncio.gather(
            *(
                _request(engine, prompt, new, at, every, start)
                for prompt, at in zip(prompts, times, strict=True)
            )
        )

    return engine.loop.run_until_complete(run())


async def _request(
    engine: RawEngine, prompt: Sequence[int], new: int, due: float, every: int, start: float
) -> Trace:
    await asyncio.sleep(due - (time.perf_counter() - start))
    sent = time.perf_counter() - start
    parameters = {"temperature": 0, "max_new_tokens": new, "ignore_eos": True, "stream_interval": every}
    stream = await engine.async_generate(input_ids=list(prompt), sampling_params=parameters, stream=True)
    events: list[Event] = []
    meta: Mapping[str, Any] = {}
    async for chunk in stream:
        now, meta = time.perf_counter() - start, chunk["meta_info"]
        events.append(Event(now, int(meta["completion_tokens"])))
    if not events or events[-1].tokens != new:
        raise ServingError(
            f"a request of {len(prompt)} tokens came back with {events[-1].tokens if events else 0} of {new} "
            f"new tokens: {meta.get('finish_reason', 'no reason given')}"
        )
    return Trace(due, sent, tuple(events), int(meta.get("num_retractions") or 0))


def flush(engine: RawEngine, patience: float = 30.0) -> None:
    """Empty the prefix cache. The engine is asked again for a while: it frees a request shortly after its
    last token has come back. Raises ServingError."""
    until = time.perf_counter() + patience
    while not engine.flush_cache().success:
        if time.perf_counter() > until:
            raise ServingError(f"the engine's prefix cache could not be flushed within {patience:.0f} s")
        time.sleep(0.05)
