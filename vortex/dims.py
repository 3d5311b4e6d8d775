"""`Dim`: an int that knows which expression of the flow's symbols it is.

A flow computes with sizes as with ints (each Dim holds the value it had while tracing), and the graph keeps
the expression. Where Python needs a plain answer (a comparison, `bool`, `float`, `int`), the answer is the
traced value, and the fact it relies on is recorded as a guard of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, SupportsIndex

from vortex.errors import FlowTypeError
from vortex.guards import COMPARISONS, MAX_GUARDS, Guard
from vortex.symbols import MAX_TEXT, TOO_LARGE, Expr, ExpressionError, parse

MAX_FACTS = MAX_GUARDS - 8  # the tracer adds one for a symbol at most
_guards: ContextVar[dict[Guard, None] | None] = ContextVar("guards", default=None)


@contextmanager
def recording(guards: dict[Guard, None] | None) -> Iterator[None]:
    """Facts that Python code asks of Dims go into `guards` (nowhere, if None) inside this block."""
    token = _guards.set(guards)
    try:
        yield
    finally:
        _guards.reset(token)


def _record(left: Expr, op: str, right: Expr) -> None:
    recorded = _guards.get()
    if recorded is None:
        return
    guard = Guard.of(left, op, right)
    if guard.left.constant is not None or guard.always():
        return
    if len(recorded) >= MAX_FACTS and guard not in recorded:
        raise FlowTypeError(
            f"the flow relies on more than {MAX_FACTS} facts about sizes",
            hint="Compare sizes outside of loops, or compute with // and % instead",
        )
    _check_length(guard.left)
    recorded[guard] = None


def _check_length(expr: Expr) -> None:
    if len(str(expr)) > MAX_TEXT:
        raise FlowTypeError(TOO_LARGE, hint="Compute sizes with fewer steps")


def _symbolic(
    exact: Callable[[int, int], int], rule: Callable[[Expr, Expr], Expr], reflected: bool = False
) -> Callable[[Dim, object], Any]:
    def method(self: Dim, other: object) -> Any:
        if isinstance(other, float):
            self._pinned()
            return NotImplemented
        if not isinstance(other, int):
            return NotImplemented
        a, b = (Dim.of(other), self) if reflected else (self, Dim.of(other))
        value = exact(a.hint, b.hint)
        if a.expr.constant is not None and b.expr.constant is not None:
            return Dim(value)
        try:
            expr = rule(a.expr, b.expr)
        except ExpressionError as error:
            raise FlowTypeError(str(error), hint="Compute sizes with fewer steps") from None
        _check_length(expr)
        return Dim(value, expr)

    return method


def _comparison(op: str, exact: Callable[[int, object], Any]) -> Callable[[Dim, object], Any]:
    def method(self: Dim, other: object) -> Any:
        if not isinstance(other, int):
            if isinstance(other, float):
                return exact(int(self), other)
            return NotImplemented
        result = exact(self.hint, other.hint if isinstance(other, Dim) else int(other))
        right = Dim.of(other).expr
        if self.expr != right:
            _record(self.expr, op if result else COMPARISONS[op], right)
        return result

    return method


class Dim(int):
    """A size: its value while tracing (`hint`) and its expression (`expr`). Without symbols it is a plain
    int."""

    expr: Expr

    def __new__(cls, value: int, expr: Expr | None = None) -> Dim:
        self = super().__new__(cls, value)
        self.expr = Expr.of(int.__int__(value)) if expr is None else expr
        return self

    @classmethod
    def of(cls, value: int) -> Dim:
        return value if isinstance(value, Dim) else cls(value)

    @classmethod
    def parse(cls, text: str | int, bindings: Mapping[str, int]) -> Dim:
        """The Dim spelled `text` over the symbols in `bindings`. Raises ExpressionError."""
        if isinstance(text, int):
            return cls(text)
        expr = parse(text, bindings)
        return cls(evaluate(expr, bindings), expr)

    @property
    def hint(self) -> int:
        return int.__int__(self)

    @property
    def symbolic(self) -> bool:
        return self.expr.constant is None

    def evaluate(self, bindings: Mapping[str, int]) -> int:
        return evaluate(self.expr, bindings)

    def same(self, other: int) -> bool:
        """Equality of the traced values that records nothing: for type rules, which run again for each
        geometry."""
        return self.hint == (other.hint if isinstance(other, Dim) else other)

    def __getnewargs__(self) -> tuple[int, Expr]:  # type: ignore[override]
        return self.hint, self.expr

    def _pinned(self) -> int:
        if self.symbolic:
            _record(self.expr, "==", Expr.of(self.hint))
        return self.hint

    def __int__(self) -> int:
        return self._pinned()

    def __float__(self) -> float:
        return float(self._pinned())

    def __bool__(self) -> bool:
        return self != 0

    def __hash__(self) -> int:
        return hash(self.hint)

    def __neg__(self) -> Dim:
        return Dim(-self.hint, -self.expr)

    def __pos__(self) -> Dim:
        return self

    def __abs__(self) -> Dim:
        return self if self >= 0 else -self

    def __pow__(self, power: Any, modulo: Any = None) -> Any:
        if modulo is None and isinstance(power, int) and not isinstance(power, Dim) and 0 <= power <= 8:
            result: Any = Dim(1)
            for _ in range(power):
                result = result * self
            return result
        return pow(self._pinned(), power, modulo)

    def __rpow__(self, base: Any, modulo: Any = None) -> Any:
        return pow(base, self._pinned(), modulo)

    def __truediv__(self, other: Any) -> Any:
        return self._pinned() / (int(other) if isinstance(other, int) else other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self._pinned()

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __lshift__(self, bits: Any) -> Any:
        return self * 2 ** min(int(bits), 64)

    def __rshift__(self, bits: Any) -> Any:
        return self // 2 ** min(int(bits), 64)

    def __or__(self, other: Any) -> Any:
        return self._pinned() | int(other)

    def __xor__(self, other: Any) -> Any:
        return self._pinned() ^ int(other)

    def __invert__(self) -> Any:
        return -self - 1

    def __round__(self, digits: SupportsIndex | None = None) -> int:
        return self

    def __trunc__(self) -> int:
        return self

    def __floor__(self) -> int:
        return self

    def __ceil__(self) -> int:
        return self

    def bit_length(self) -> int:
        return self._pinned().bit_length()

    def bit_count(self) -> int:
        return self._pinned().bit_count()

    def __str__(self) -> str:
        return str(self.expr)

    def __repr__(self) -> str:
        return str(self.expr)

    def __format__(self, spec: str) -> str:
        return format(self._pinned(), spec) if spec else str(self.expr)


def _install() -> None:
    """Arithmetic and comparisons, one line each; installed here because they differ in one operation only."""
    rules: dict[str, tuple[Callable[[int, int], int], Callable[[Expr, Expr], Expr]]] = {
        "add": (int.__add__, Expr.__add__),
        "sub": (int.__sub__, Expr.__sub__),
        "mul": (int.__mul__, Expr.__mul__),
        "floordiv": (int.__floordiv__, Expr.__floordiv__),
        "mod": (int.__mod__, Expr.__mod__),
        "and": (int.__and__, Expr.__and__),
    }
    for name, (exact, rule) in rules.items():
        setattr(Dim, f"__{name}__", _symbolic(exact, rule))
        setattr(Dim, f"__r{name}__", _symbolic(exact, rule, reflected=True))
    comparisons: dict[str, tuple[str, Callable[[int, Any], Any]]] = {
        "__eq__": ("==", lambda a, b: a == b),
        "__ne__": ("!=", lambda a, b: a != b),
        "__lt__": ("<", lambda a, b: a < b),
        "__le__": ("<=", lambda a, b: a <= b),
        "__gt__": (">", lambda a, b: a > b),
        "__ge__": (">=", lambda a, b: a >= b),
    }
    for name, (op, compare) in comparisons.items():
        setattr(Dim, name, _comparison(op, compare))


_install()


def evaluate(expr: Expr, bindings: Mapping[str, int]) -> int:
    """The value of `expr`; a division by zero or a symbol without a value is an ExpressionError."""
    try:
        return expr.evaluate(bindings)
    except ZeroDivisionError:
        raise ExpressionError(f"{expr} divides by zero") from None
    except KeyError as error:
        raise ExpressionError(f"{expr} uses {error.args[0]}, which this geometry does not have") from None
