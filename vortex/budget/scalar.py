"""A policy's meaning, one row at a time, in plain Python: what every other form is tested against."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Sequence

from vortex.budget.tree import Assign, Cast, Const, CType, Expr, If, Stmt, Tree, Var

Value = float  # bool and int values are Python ints
INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def wrap(value: int) -> int:
    """`value` modulo 2^32, as an int32."""
    return (value + 2**31) % 2**32 - 2**31


def round32(value: float) -> float:
    """The nearest binary32 value, ties to even; too large becomes an infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def fit(type: CType, value: Value) -> Value:
    """The exact result of an operation, rounded or wrapped to its type."""
    if type is CType.INT:
        return wrap(int(value))
    if type is CType.BOOL:
        return int(bool(value))
    return round32(value) if type is CType.FLOAT else float(value)


def convert(type: CType, value: Value) -> Value:
    """C's conversion of a value to `type`."""
    if type is CType.BOOL:
        return int(value != 0)
    if type is CType.INT:
        if isinstance(value, int):
            return wrap(value)
        if math.isnan(value):
            return 0
        return math.trunc(min(max(value, INT_MIN), INT_MAX))
    return fit(type, value)


def int_div(a: int, b: int) -> int:
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def float_div(a: float, b: float) -> float:
    if b:
        return a / b
    if a == 0 or math.isnan(a) or math.isnan(b):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def log2(x: float) -> float:
    if math.isnan(x) or x < 0:
        return math.nan
    return math.log2(x) if x else -math.inf


_INT: dict[str, Callable[..., int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": int_div,
    "%": lambda a, b: a - b * int_div(a, b),
    "<<": lambda a, b: a << (b & 31),
    ">>": lambda a, b: a >> (b & 31),
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "~": operator.invert,
}
_FLOAT: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": float_div,
}
_ANY: dict[str, Callable[..., Value]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "&&": lambda a, b: a and b,
    "||": lambda a, b: a or b,
    "!": operator.not_,
    "neg": operator.neg,
    "abs": abs,
    "min": lambda a, b: b if b < a or a != a else a,
    "max": lambda a, b: b if b > a or a != a else a,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "log2": log2,
    "?:": lambda c, a, b: a if c else b,
}


def apply(type: CType, op: str, args: Sequence[Value]) -> Value:
    """One operation on operands that were converted already."""
    table = _INT if type is CType.INT else _FLOAT
    function = table.get(op) or _ANY[op]
    return fit(type, function(*args))


def expression(e: Expr, env: Sequence[Value]) -> Value:
    if isinstance(e, Const):
        return int(e.value) if e.type in (CType.BOOL, CType.INT) else e.value
    if isinstance(e, Var):
        return env[e.slot]
    if isinstance(e, Cast):
        return convert(e.type, expression(e.value, env))
    return apply(e.type, e.op, [expression(a, env) for a in e.args])


def run(body: tuple[Stmt, ...], env: list[Value]) -> Value | None:
    for s in body:
        if isinstance(s, Assign):
            env[s.slot] = expression(s.value, env)
        elif isinstance(s, If):
            result = run(s.then if expression(s.condition, env) else s.other, env)
            if result is not None:
                return result
        else:
            return expression(s.value, env)
    return None


def evaluate(tree: Tree, arguments: Sequence[Value]) -> int:
    """The policy's result for one row; `arguments` in the order of `PARAMETERS`."""
    env = [convert(t, v) for t, v in zip(tree.slots, arguments, strict=False)]
    env += [convert(t, 0) for t in tree.slots[len(env) :]]
    result = run(tree.body, env)
    assert result is not None, "the parser checks that every path returns"
    return int(result)
