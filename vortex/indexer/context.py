"""The scoring stage's context."""

from __future__ import annotations

from vortex.abs.stage_context import StageContext
from vortex.graph.model import Stage


class Context(StageContext):
    """See `StageContext`; the one instance is `get_ctx()`."""

    stage = Stage.INDEXER


_ctx = Context()


def get_ctx() -> Context:
    """The stage's one instance."""
    return _ctx
