"""A policy over many rows at once with numpy: both sides of a branch are computed and lanes pick theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vortex.budget.tree import Assign, Cast, Const, CType, Expr, If, Stmt, Tree, Var

Array: TypeAlias = NDArray[Any]
_DTYPE = {CType.BOOL: np.bool_, CType.INT: np.int32, CType.FLOAT: np.float32, CType.DOUBLE: np.float64}


def convert(type: CType, x: Array) -> Array:
    """C's conversion, elementwise; floats saturate and NaN becomes 0 on the way to int."""
    if type is CType.INT and x.dtype.kind == "f":
        wide = np.clip(np.nan_to_num(x.astype(np.float64), nan=0.0), -(2.0**31), 2.0**31 - 1)
        return np.trunc(wide).astype(np.int32)
    if type is CType.BOOL:
        return np.asarray(x != 0)
    return x.astype(_DTYPE[type])


def _int_div(a: Array, b: Array) -> Array:
    wide, divisor = a.astype(np.int64), np.where(b == 0, 1, b).astype(np.int64)
    quotient = np.abs(wide) // np.abs(divisor) * np.sign(wide) * np.sign(divisor)
    return np.asarray(np.where(b == 0, 0, quotient).astype(np.int32))


def _divide(a: Array, b: Array) -> Array:
    return _int_div(a, b) if a.dtype.kind == "i" else a / b


def _log2(x: Array) -> Array:
    return np.asarray(np.log2(x.astype(np.float64)).astype(np.float32))


_OPS: dict[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "%": lambda a, b: a - b * _int_div(a, b),
    "<<": lambda a, b: (a.view(np.uint32) << (b & 31).view(np.uint32)).view(np.int32),
    ">>": lambda a, b: a >> (b & 31),
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
    "~": np.invert,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "&&": np.logical_and,
    "||": np.logical_or,
    "!": np.logical_not,
    "neg": np.negative,
    "abs": np.abs,
    "min": lambda a, b: np.where((b < a) | (a != a), b, a),
    "max": lambda a, b: np.where((b > a) | (a != a), b, a),
    "sqrt": np.sqrt,
    "log2": _log2,
    "?:": np.where,
}


def _expression(e: Expr, env: list[Array], rows: int) -> Array:
    if isinstance(e, Const):
        return np.full(rows, e.value, dtype=_DTYPE[e.type])
    if isinstance(e, Var):
        return env[e.slot]
    if isinstance(e, Cast):
        return convert(e.type, _expression(e.value, env, rows))
    return np.asarray(_OPS[e.op](*(_expression(a, env, rows) for a in e.args)))


def _run(body: tuple[Stmt, ...], env: list[Array], active: Array, result: Array) -> Array:
    """Runs `body` on the active lanes, writes their results, and returns the lanes that have not returned."""
    rows = len(active)
    for s in body:
        if not active.any():
            break
        if isinstance(s, Assign):
            env[s.slot] = np.where(active, _expression(s.value, env, rows), env[s.slot])
        elif isinstance(s, If):
            condition = _expression(s.condition, env, rows)
            left = _run(s.then, env, active & condition, result)
            active = left | _run(s.other, env, active & ~condition, result)
        else:
            result[active] = _expression(s.value, env, rows)[active]
            active = np.zeros_like(active)
    return active


def evaluate(tree: Tree, arguments: tuple[Array | float, ...]) -> NDArray[np.int32]:
    """Results of every row, int32; `arguments` in the order of `PARAMETERS`, broadcast to one axis."""
    given = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a)) for a in arguments))
    rows = len(given[0])
    with np.errstate(all="ignore"):
        env = [convert(t, a) for t, a in zip(tree.slots, given, strict=False)]
        env += [np.zeros(rows, dtype=_DTYPE[t]) for t in tree.slots[len(env) :]]
        result = np.zeros(rows, dtype=np.int32)
        _run(tree.body, env, np.ones(rows, dtype=np.bool_), result)
    return result
