"""Literals, and arithmetic on them, that are only there to be large; what is computed the jail limits."""

from __future__ import annotations

import ast

MAX_STRING = 4000
MAX_INTEGER = 2**31
MAX_POWER = 64
MAX_REPEAT = 1000


def too_large(node: ast.AST) -> str | None:
    """What is wrong with this node's size, if anything."""
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if not isinstance(node, ast.BinOp):
        return None
    left, right = node.left, node.right
    if isinstance(node.op, ast.Pow | ast.LShift) and _computed(right) and not _at_most(right, MAX_POWER):
        return f"a power or shift by a literal above {MAX_POWER}"
    if isinstance(node.op, ast.Mult):
        for repeated, times in ((left, right), (right, left)):
            sequence = isinstance(repeated, ast.List | ast.Tuple) or _text(repeated)
            if sequence and _computed(times) and not _at_most(times, MAX_REPEAT):
                return f"repeating a literal more than {MAX_REPEAT} times"
    if isinstance(node.op, ast.Mod) and _text(left):
        return "formatting with % has no bound; use an f-string"
    return None


def _constant(value: object) -> str | None:
    if isinstance(value, bytes | complex):
        return f"a {type(value).__name__} literal has no use in a flow"
    if isinstance(value, str) and len(value) > MAX_STRING:
        return f"a string of {len(value)} characters; at most {MAX_STRING}"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"an integer above {MAX_INTEGER}"
    return None


def _computed(node: ast.expr) -> bool:
    """A literal, or arithmetic that may well be on literals."""
    return isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp)


def _at_most(node: ast.expr, most: int) -> bool:
    if isinstance(node, ast.UnaryOp):
        return _at_most(node.operand, most)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value <= most


def _text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
