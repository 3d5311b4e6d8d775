"""The names a candidate may use. Everything else is refused by `allowlist.py`, with the nearest of these."""

from __future__ import annotations

import functools
import math

BASES = frozenset({"vFlow", "vFlowMLA"})
TYPING = frozenset(
    {"Any", "Dict", "Final", "Iterable", "List", "Mapping", "Optional", "Sequence", "Set", "Tuple", "Union"}
)
MATH = frozenset(name for name in dir(math) if not name.startswith("_"))
TORCH = frozenset(
    {"Tensor", "Size", "dtype", "device", "float32", "float16", "bfloat16", "float8_e4m3fn",
    "float8_e5m2", "int32",
     "int64", "bool", "float", "half", "int", "long", "uint8", "int8"}
)  # fmt: skip
BUILTINS = frozenset(
    {"abs", "all", "any", "bool", "dict", "divmod", "enumerate", "float", "frozenset", "int",
    "isinstance", "len", "list",
     "max", "min", "pow", "range", "reversed", "round", "set", "sorted", "str", "sum", "super", "tuple",
     "zip",
     "ArithmeticError", "AssertionError", "Exception", "IndexError", "KeyError", "NotImplementedError",
     "RuntimeError",
     "TypeError", "ValueError"}
)  # fmt: skip
TENSOR_ATTRIBUTES = frozenset({"shape", "dtype", "device", "dim", "ndim", "numel", "size", "needs_padding"})
CONTAINER_METHODS = frozenset(
    {"append", "copy", "count", "extend", "get", "index", "insert", "items", "keys", "pop", "reverse",
    "setdefault", "sort",
     "update", "values", "add", "union", "bit_length", "join", "startswith", "endswith", "split", "strip",
     "lower",
     "upper"}
)  # fmt: skip
ATTRIBUTES = TENSOR_ATTRIBUTES | CONTAINER_METHODS


@functools.cache
def importable() -> dict[str, frozenset[str]]:
    """Module (as `vortex.x`) to the names that may be imported from it; modules themselves are never handed out."""
    from vortex.graph.model import Stage
    from vortex.ops import stage_ops

    return {
        "__future__": frozenset({"annotations"}),
        "typing": TYPING,
        "math": MATH,
        "torch": TORCH,
        "vortex.flow": BASES | {"register"},
        "vortex.abs": frozenset({"ContextBase"}),
        "vortex.indexer": frozenset(stage_ops(Stage.INDEXER)),
        "vortex.cache": frozenset(stage_ops(Stage.CACHE)),
    }
