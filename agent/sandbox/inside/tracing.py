"""From one candidate's source to one JSON document: a graph, or an error that its author can act on.

Runs in a forked child. The builtins that the candidate sees are the allow-list's; that is a courtesy (clear
errors), not a wall: whoever gets around it is still in the jail.
"""

import builtins
import difflib
import json
from typing import Any

from vortex.check import names
from vortex.errors import FlowTypeError, GraphError, VortexError
from vortex.flow import trace_source
from vortex.flow.where import raising_line
from vortex.graph.geometry import Geometry

FILENAME = "flow.py"
MAX_TEXT = 1500
MODULES = frozenset(names.importable())

SAMPLE = """
import torch
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import GeMM, Max, Mean, Softmax, topK
from vortex_torch.cache import Mean as CMean

@register("warm_up")
class WarmUp(vFlow):
    def __init__(self):
        super().__init__()
        self.summary, self.heads, self.score, self.select = CMean(dim=1), Mean(dim=1), GeMM(), topK()

    def create_cache(self, block_size: int, head_dim: int):
        return {"centroids": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.summary(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: torch.Tensor, o, cache, ctx):
        self.select(self.score(self.heads(q, ctx=ctx), cache["centroids"], ctx=ctx), o, ctx=ctx)
"""


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if level or name.replace("vortex_torch", "vortex", 1) not in MODULES:
        raise ImportError(f"a flow cannot import {name!r}; it imports from {', '.join(sorted(MODULES))}")
    return __import__(name, globals, locals, fromlist, level)


SCOPE = {name: getattr(builtins, name) for name in names.BUILTINS} | {
    "__build_class__": builtins.__build_class__,
    "__import__": _import,
}


class Answerer:
    """Answers candidates for a model of the geometry of these sizes."""

    def __init__(self, *sizes: int) -> None:
        self._geometry = Geometry(*sizes)

    def __call__(self, source: str) -> str:
        """The document for one candidate; never raises."""
        try:
            graph = trace_source(source, FILENAME, scope=SCOPE, geometry=self._geometry)
            return json.dumps({"graph": graph.to_json()})
        except BaseException as error:
            return json.dumps({"error": _describe(error)})


def _describe(error: BaseException) -> dict[str, Any]:
    if isinstance(error, FlowTypeError):
        found = {"op": error.op, "line": error.line, "shapes": list(error.shapes), "hint": error.hint}
        return {"kind": "type", "message": str(error)[:MAX_TEXT], **found}
    line = raising_line(error.__traceback__, FILENAME)
    if isinstance(error, GraphError):
        return {"kind": "resource", "message": str(error)[:MAX_TEXT], "line": error.line}
    if isinstance(error, MemoryError | RecursionError):
        what = "memory" if isinstance(error, MemoryError) else "recursion"
        return {"kind": "resource", "message": f"the trace ran out of {what}", "line": line}
    if isinstance(error, VortexError):
        cause = error.__cause__
        if isinstance(cause, MemoryError | RecursionError):
            return _describe(cause)
        line = error.line or line
        return {"kind": "type", "message": str(error)[:MAX_TEXT], "line": line}
    kind = "type" if isinstance(error, Exception) else "forbidden"
    return {"kind": kind, "message": f"{type(error).__name__}: {error}"[:MAX_TEXT], "line": line}


def warm_up(answer: Answerer) -> None:
    """Imports and runs once what a trace needs, also for its errors, as children cannot always import."""
    difflib.get_close_matches("a", ["b"])
    for source in (SAMPLE, SAMPLE.replace("Mean(dim=1), GeMM", "Mean(dim=2), GeMM"), "import os", "1 +"):
        found = json.loads(answer(source))
        assert ("graph" in found) == (source is SAMPLE), found
