"""Traces of requests whose timing is known."""

from __future__ import annotations

from evaluators.serving.requests import Event, Trace


def trace(begin: float, step: float, tokens: int, *, every: int = 4, due: float = 0.0) -> Trace:
    """A request whose first token comes at `begin` and one more each `step` seconds; chunks as an engine
    sends them: after the first token, then after each `every`, and at the end."""
    counts = [count for count in range(1, tokens) if count == 1 or count % every == 1] + [tokens]
    events = tuple(Event(begin + step * (count - 1), count) for count in counts)
    return Trace(due, due, events, retractions=0)
