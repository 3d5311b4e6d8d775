"""The names a flow file may use. Everything else is refused by `allowlist.py`, with the nearest of these."""

from __future__ import annotations

import functools
import math


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BASES = frozenset({"vFlow", "vFlowMLA"})
TYPING = _words("Any Dict Final Iterable List Mapping Optional Sequence Set Tuple Union")
MATH = frozenset(name for name in dir(math) if not name.startswith("_"))
TORCH = _words(
    "Tensor Size dtype device float32 float16 bfloat16 float8_e4m3fn float8_e5m2 int64 int32 int8 uint8 bool "
    "float half int long"
)
BUILTINS = _words(
    "abs all any bool dict divmod enumerate float frozenset int isinstance len list max min pow range "
    "reversed round set sorted str sum super tuple zip ArithmeticError AssertionError Exception "
    "IndexError KeyError NotImplementedError RuntimeError TypeError ValueError"
)
TENSOR_ATTRIBUTES = _words("shape dtype device dim ndim numel size needs_padding")
CONTAINER_METHODS = _words(
    "append copy count extend get index insert items keys pop reverse setdefault sort update values add "
    "union bit_length join startswith endswith split strip lower upper"
)
ATTRIBUTES = TENSOR_ATTRIBUTES | CONTAINER_METHODS
"""Attributes of anything but `self` and an imported module."""
INTROSPECTION = (
    "gi_",
    "cr_",
    "ag_",
    "tb_",
    "co_",
    "f_back",
    "f_globals",
    "f_builtins",
    "f_locals",
    "f_code",
    "format",
)
"""Prefixes of attributes that `self` may not have either: ways into frames, code and formatting."""


@functools.cache
def importable() -> dict[str, frozenset[str]]:
    """Module (as `vortex.x`) to the names that may be imported from it; never a module of vortex itself."""
    from vortex.graph.model import Stage
    from vortex.ops import stage_ops

    return {
        "__future__": frozenset({"annotations"}),
        "typing": TYPING,
        "math": MATH,
        "torch": TORCH,
        "vortex.flow": BASES | {"register", "vTensor"},
        "vortex.abs": frozenset({"ContextBase"}),
        "vortex.indexer": frozenset(stage_ops(Stage.INDEXER)),
        "vortex.cache": frozenset(stage_ops(Stage.CACHE)),
    }
