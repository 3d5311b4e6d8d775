"""The summary stage's ops: run once for every finished block.

The classes are made from the op definitions in `vortex.ops`; `docs/ops.md` lists them.
"""

from typing import Any

from vortex.flow.views import missing, views
from vortex.graph.model import Stage

_VIEWS = views(Stage.CACHE)
globals().update(_VIEWS)
__all__ = sorted(_VIEWS)


def __getattr__(name: str) -> Any:
    raise missing(Stage.CACHE, name)
