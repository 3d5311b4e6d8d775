"""The type of the `ctx` argument that every op call passes along."""

from __future__ import annotations


class ContextBase:
    """What the engine hands to `forward_cache` and `forward_indexer`. Flows pass it on to their ops and ask
    nothing of it."""
