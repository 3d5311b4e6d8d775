"""Integer expressions over a flow's symbols, in a normal form: a polynomial over atoms.

An atom is a symbol, or `p//q`, `p%q`, `p&q` of two expressions. Equal normal forms have equal text, and the
text parses back to the same expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

MAX_TERMS, MAX_DEGREE, MAX_TEXT, MAX_DEPTH, MAX_COEFFICIENT = 32, 8, 400, 50, 2**62
TOO_LARGE = "a size expression has grown beyond any real size"
_INFINITY = float("inf")


class ExpressionError(ValueError):
    """An expression that is malformed, or larger than any real size is."""


@dataclass(frozen=True)
class Atom:
    """A symbol (`op == ""`), or an integer operation that a polynomial cannot express."""

    symbol: str
    op: str = ""
    operands: tuple[Expr, ...] = ()

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        if not self.op:
            return bindings[self.symbol]
        left, right = (operand.evaluate(bindings) for operand in self.operands)
        if self.op == "&":
            return left & right
        return left // right if self.op == "//" else left % right

    def bounds(self) -> tuple[float, float]:
        """Bounds that hold for every geometry; symbols are at least 1."""
        if not self.op:
            return 1, _INFINITY
        (low, high), (divisor, most) = (operand.bounds() for operand in self.operands)
        if low < 0 or divisor < 1:
            return -_INFINITY, _INFINITY
        if self.op == "//":
            return (0 if most == _INFINITY else low // most), high if high == _INFINITY else high // divisor
        return 0, (min(high, most) if self.op == "&" else min(high, most - 1))

    @cached_property
    def text(self) -> str:
        if not self.op:
            return self.symbol
        left, right = (str(operand) if operand.simple else f"({operand})" for operand in self.operands)
        return f"{left}{self.op}{right}"


Monomial = tuple[tuple[Atom, int], ...]


@dataclass(frozen=True)
class Expr:
    """A polynomial: monomials with non-zero coefficients, in the order of their text."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(value: int | str) -> Expr:
        if isinstance(value, str):
            return Expr(((((Atom(value), 1),), 1),))
        return Expr((((), value),)) if value else Expr(())

    @cached_property
    def constant(self) -> int | None:
        """The value of an expression without symbols, else None."""
        if not self.terms:
            return 0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def simple(self) -> bool:
        """Whether the text needs no parentheses as an operand."""
        constant = self.constant
        if constant is not None:
            return constant >= 0
        (monomial, coefficient), *rest = self.terms
        return (
            not rest
            and coefficient == 1
            and len(monomial) == 1
            and monomial[0][1] == 1
            and not monomial[0][0].op
        )

    def symbols(self) -> frozenset[str]:
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom, _ in monomial:
                found |= (
                    {atom.symbol} if not atom.op else frozenset().union(*(o.symbols() for o in atom.operands))
                )
        return frozenset(found)

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        total = 0
        for monomial, coefficient in self.terms:
            for atom, power in monomial:
                coefficient *= atom.evaluate(bindings) ** power
            total += coefficient
        return total

    def bounds(self) -> tuple[float, float]:
        low = high = 0.0
        for monomial, coefficient in self.terms:
            least, most = 1.0, 1.0
            for atom, power in monomial:
                a, b = atom.bounds()
                if a < 0:
                    return -_INFINITY, _INFINITY
                least, most = least * a**power, most * b**power if b else 0.0
            ends = (coefficient * least, coefficient * most if most else 0.0)
            low, high = low + min(ends), high + max(ends)
        return low, high

    def __add__(self, other: Expr) -> Expr:
        return _collect((*self.terms, *other.terms))

    def __neg__(self) -> Expr:
        return Expr(tuple((monomial, -coefficient) for monomial, coefficient in self.terms))

    def __sub__(self, other: Expr) -> Expr:
        return self + -other

    def __mul__(self, other: Expr) -> Expr:
        return _collect((_product(left, right), a * b) for left, a in self.terms for right, b in other.terms)

    def __floordiv__(self, other: Expr) -> Expr:
        exact = self.exact(other)
        return exact if exact is not None else _atom("//", self, other)

    def __mod__(self, other: Expr) -> Expr:
        return Expr.of(0) if self.exact(other) is not None else _atom("%", self, other)

    def __and__(self, other: Expr) -> Expr:
        return _atom("&", *sorted((self, other), key=str))

    def exact(self, other: Expr) -> Expr | None:
        """self / other where that is a polynomial for every geometry, else None."""
        divisor = other.constant
        if divisor == 0:
            raise ZeroDivisionError("integer division or modulo by zero")
        if divisor is not None:
            if any(coefficient % divisor for _, coefficient in self.terms):
                return None
            return Expr(tuple((monomial, coefficient // divisor) for monomial, coefficient in self.terms))
        if len(other.terms) != 1 or other.bounds()[0] < 1:
            return Expr.of(1) if self == other and other.bounds()[0] >= 1 else None
        (factor, scale), quotient = other.terms[0], []
        for monomial, coefficient in self.terms:
            powers = dict(monomial)
            for atom, power in factor:
                powers[atom] = powers.get(atom, 0) - power
            if coefficient % scale or any(power < 0 for power in powers.values()):
                return None
            kept = tuple((atom, power) for atom, power in powers.items() if power)
            quotient.append((kept, coefficient // scale))
        return _collect(quotient)

    @cached_property
    def _text(self) -> str:
        parts: list[str] = []
        for monomial, coefficient in sorted(
            self.terms, key=lambda term: (-_degree(term[0]), _spell(term[0]))
        ):
            spelled, size = _spell(monomial), abs(coefficient)
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0].op != "&":
                spelled = monomial[0][0].text  # binds tighter than the + and - around it
            body = spelled if size == 1 and monomial else f"{size}*{spelled}" if monomial else str(size)
            sign = "-" if coefficient < 0 else ""
            parts.append(f"{' - ' if sign else ' + '}{body}" if parts else f"{sign}{body}")
        return "".join(parts) or "0"

    def __str__(self) -> str:
        return self._text


def _degree(monomial: Monomial) -> int:
    return sum(power for _, power in monomial)


def _spell(monomial: Monomial) -> str:
    return "*".join(
        "*".join([f"({atom.text})" if atom.op else atom.text] * power) for atom, power in monomial
    )


def _product(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(powers.items())


def _collect(terms: Iterable[tuple[Monomial, int]]) -> Expr:
    sums: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        key = tuple(sorted(monomial, key=lambda item: item[0].text))
        sums[key] = sums.get(key, 0) + coefficient
        if len(sums) > MAX_TERMS or _degree(key) > MAX_DEGREE or abs(sums[key]) > MAX_COEFFICIENT:
            raise ExpressionError(TOO_LARGE)
    kept = [(monomial, coefficient) for monomial, coefficient in sums.items() if coefficient]
    return Expr(tuple(sorted(kept, key=lambda term: _spell(term[0]))))


def _atom(op: str, left: Expr, right: Expr) -> Expr:
    a, b = left.constant, right.constant
    if a is not None and b is not None:
        return Expr.of(a // b if op == "//" else a % b if op == "%" else a & b)
    atom = Atom("", op, (left, right))
    if len(atom.text) > MAX_TEXT:
        raise ExpressionError(TOO_LARGE)
    return Expr((((((atom, 1),), 1)),))


def parse(text: str, symbols: Iterable[str]) -> Expr:
    """The expression that `text` spells. Raises ExpressionError; safe on arbitrary text."""
    return _parse(text, frozenset(symbols))


@lru_cache(maxsize=4096)
def _parse(text: str, symbols: frozenset[str]) -> Expr:
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"a size expression has more than {MAX_TEXT} characters")
    try:
        return _Parser(text, symbols).whole()
    except ZeroDivisionError:
        raise ExpressionError(f"{text!r} divides by zero") from None


_TOKEN = re.compile(r"\s*(?:([0-9]{1,19})|([A-Za-z_][A-Za-z0-9_]*)|(//|[-+*%&()]))", re.ASCII)
_LEVELS: tuple[Mapping[str, Callable[[Expr, Expr], Expr]], ...] = (
    {"&": Expr.__and__},
    {"+": Expr.__add__, "-": Expr.__sub__},
    {"*": Expr.__mul__, "//": Expr.__floordiv__, "%": Expr.__mod__},
)


class _Parser:
    """Precedence climbing with Python's precedences. (Python 3.11's own parser is unsafe in threads.)"""

    def __init__(self, text: str, symbols: frozenset[str]) -> None:
        self.text, self.symbols, self.at, self.depth = text, symbols, 0, 0
        self.tokens: list[str] = []
        end = 0
        while text[end:].strip():
            found = _TOKEN.match(text, end)
            if found is None:
                raise self.error()
            self.tokens.append(found[0].strip())
            end = found.end()

    def error(self) -> ExpressionError:
        return ExpressionError(
            f"{self.text!r} is not a size expression over {', '.join(sorted(self.symbols))}"
        )

    def whole(self) -> Expr:
        result = self.level(0)
        if self.at < len(self.tokens):
            raise self.error()
        return result

    def level(self, precedence: int) -> Expr:
        if precedence == len(_LEVELS):
            return self.operand()
        left = self.level(precedence + 1)
        while self.at < len(self.tokens) and self.tokens[self.at] in _LEVELS[precedence]:
            rule = _LEVELS[precedence][self.tokens[self.at]]
            self.at += 1
            left = rule(left, self.level(precedence + 1))
        return left

    def operand(self) -> Expr:
        if self.at == len(self.tokens):
            raise self.error()
        token = self.tokens[self.at]
        self.at += 1
        if token.isdigit() and int(token) <= MAX_COEFFICIENT:
            return Expr.of(int(token))
        if token in self.symbols:
            return Expr.of(token)
        self.depth += 1
        if token not in ("-", "(") or self.depth > MAX_DEPTH:
            raise self.error()
        inner = -self.operand() if token == "-" else self.level(0)
        self.depth -= 1
        if token == "(":
            if self.at == len(self.tokens) or self.tokens[self.at] != ")":
                raise self.error()
            self.at += 1
        return inner
