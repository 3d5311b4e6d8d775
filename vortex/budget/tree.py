"""The checked tree of a budget policy: typed expressions over int, float, double and bool, three statements.

Every operator takes operands of one type; the parser writes C's conversions out as `Cast`. All expressions
are total (no traps, no undefined values), so that a tree means the same on the CPU, vectorised, and on a
GPU:

* int is 32 bits, two's complement; `+ - *`, unary minus and `abs` wrap around.
* `/` and `%` of ints truncate towards zero; `x / 0` is 0 and `x % 0` is x.
* a shift count is taken modulo 32; `>>` is arithmetic.
* float and double are IEEE binary32 and binary64, each operation rounded to nearest even, never contracted.
* float to int truncates, saturates at the ends of int, and NaN becomes 0.
* `min(a, b)` is b if b < a or a is NaN, otherwise a; `max` likewise.
* `log2f(x)` is the binary64 logarithm rounded to binary32, `sqrtf` is correctly rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class CType(StrEnum):
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DOUBLE = "double"


@dataclass(frozen=True)
class Const:
    type: CType
    value: float
    """An int for BOOL and INT, otherwise a float that the type holds exactly."""


@dataclass(frozen=True)
class Var:
    type: CType
    slot: int


@dataclass(frozen=True)
class Op:
    """`+ - * / % << >> & | ^ < <= > >= == != && || ! ~ neg abs min max sqrt log2 ?:`."""

    type: CType
    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Cast:
    type: CType
    value: Expr


Expr: TypeAlias = Const | Var | Op | Cast


@dataclass(frozen=True)
class Assign:
    slot: int
    value: Expr


@dataclass(frozen=True)
class If:
    condition: Expr
    then: tuple[Stmt, ...]
    other: tuple[Stmt, ...]


@dataclass(frozen=True)
class Return:
    value: Expr


Stmt: TypeAlias = Assign | If | Return

PARAMETERS: tuple[tuple[str, CType], ...] = (
    ("cached_block_len", CType.INT),
    ("topk_val", CType.INT),
    ("topk_ratio", CType.FLOAT),
    ("block_reserved_bos", CType.INT),
    ("block_reserved_eos", CType.INT),
)


@dataclass(frozen=True)
class Tree:
    """`slots[i]` is the type of local i; the first five are the parameters, the others start at zero."""

    slots: tuple[CType, ...]
    body: tuple[Stmt, ...]


def returns(body: tuple[Stmt, ...]) -> bool:
    """Whether every path through `body` ends in a return."""
    return any(
        isinstance(s, Return) or (isinstance(s, If) and returns(s.then) and returns(s.other)) for s in body
    )
