"""Facts about sizes: comparisons of two expressions, in a normal form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from vortex.symbols import MAX_TEXT, Expr, ExpressionError, parse

MAX_GUARDS = 256
COMPARISONS = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


@dataclass(frozen=True)
class Guard:
    """`left op right`: a fact about the symbols that a graph relies on. `right` is a constant or free of
    common terms."""

    left: Expr
    op: str
    right: Expr

    @staticmethod
    def of(left: Expr, op: str, right: Expr) -> Guard:
        """The guard in normal form: constants on the right, no common factor, strict integer bounds made
        inclusive."""
        difference = left - right
        offset = -sum(coefficient for monomial, coefficient in difference.terms if not monomial)
        body = Expr(tuple(term for term in difference.terms if term[0]))
        if body.terms and body.terms[0][1] < 0:
            body, offset = -body, -offset
            op = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(op, op)
        if op == ">":
            op, offset = ">=", offset + 1
        elif op == "<":
            op, offset = "<=", offset - 1
        common = gcd(*(coefficient for _, coefficient in body.terms)) if body.terms else 1
        if common > 1 and (op in ("<=", ">=") or offset % common == 0):
            body = Expr(tuple((monomial, coefficient // common) for monomial, coefficient in body.terms))
            offset = offset // common if op == "<=" else -(-offset // common)
        return Guard(body, op, Expr.of(offset))

    @staticmethod
    def parse(text: str, symbols: Iterable[str]) -> Guard:
        if len(text) > 2 * MAX_TEXT:
            raise ExpressionError("a guard is too long")
        for op in ("==", "!=", "<=", ">=", "<", ">"):
            left, found, right = text.partition(op)
            if found:
                return Guard.of(parse(left, symbols), op, parse(right, symbols))
        raise ExpressionError(f"{text!r} is not a comparison of two size expressions")

    def holds(self, bindings: Mapping[str, int]) -> bool:
        left, right = self.left.evaluate(bindings), self.right.evaluate(bindings)
        return {
            "==": left == right,
            "!=": left != right,
            "<=": left <= right,
            ">=": left >= right,
            "<": left < right,
            ">": left > right,
        }[self.op]

    def always(self) -> bool:
        """Whether the guard provably holds for every geometry."""
        (low, high), right = self.left.bounds(), self.right.constant
        if right is None:
            return False
        return {
            "==": low == high == right,
            "!=": right < low or right > high,
            "<=": high <= right,
            ">=": low >= right,
        }.get(self.op, False)

    def symbols(self) -> frozenset[str]:
        return self.left.symbols() | self.right.symbols()

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"
