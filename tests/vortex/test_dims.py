"""Sizes that are ints and expressions at once."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vortex.dims import Dim, recording
from vortex.errors import FlowTypeError
from vortex.guards import Guard
from vortex.symbols import Expr, ExpressionError, parse

AT = {"block_size": 16, "head_dim": 128, "group": 4}
B, D, G = (Dim.parse(name, AT) for name in AT)

sizes = st.integers(1, 64)
expressions = st.recursive(
    st.one_of(st.sampled_from(list(AT)), st.integers(-5, 300).map(lambda n: f"({n})")),
    lambda inner: st.builds(
        lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["+", "-", "*", "//", "%", "&"]), inner
    ),
    max_leaves=8,
)


def evaluated(text: str, bindings: dict[str, int]) -> int:
    try:
        return int(eval(text, {}, dict(bindings)))
    except ZeroDivisionError:
        assume(False)
        raise


@settings(max_examples=400, deadline=None)
@given(expressions, sizes, sizes, sizes)
def test_expressions_mean_what_python_means(text: str, block_size: int, head_dim: int, group: int) -> None:
    at = {"block_size": block_size, "head_dim": head_dim, "group": group}
    want = evaluated(text, at)
    try:
        expr = parse(text, AT)
    except ExpressionError:
        assume(False)
        raise
    assert expr.evaluate(at) == want
    assert parse(str(expr), AT) == expr, "the text of an expression is the expression"
    low, high = expr.bounds()
    assert low <= want <= high


@settings(max_examples=200, deadline=None)
@given(expressions)
def test_dims_compute_as_ints_do(text: str) -> None:
    want = evaluated(text, AT)
    try:
        found: Any = eval(text, {}, {"block_size": B, "head_dim": D, "group": G})
    except FlowTypeError:
        assume(False)
        raise
    assert found == want
    assert int(found) == want
    if isinstance(found, Dim):
        assert found.evaluate(AT) == want


@settings(max_examples=300, deadline=None)
@given(expressions, expressions, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), sizes, sizes, sizes)
def test_guards_hold_where_the_comparison_comes_out_the_same(
    left: str, right: str, op: str, block_size: int, head_dim: int, group: int
) -> None:
    truth = eval(f"({evaluated(left, AT)}) {op} ({evaluated(right, AT)})")
    there = {"block_size": block_size, "head_dim": head_dim, "group": group}
    same = eval(f"({evaluated(left, there)}) {op} ({evaluated(right, there)})") == truth
    guards: dict[Guard, None] = {}
    try:
        with recording(guards):
            result = eval(f"({left}) {op} ({right})", {}, {"block_size": B, "head_dim": D, "group": G})
    except FlowTypeError:
        assume(False)
        raise
    assert result == truth
    assert all(guard.holds(there) for guard in guards) == same
    assert all(guard.holds(AT) for guard in guards)
    assert all(Guard.parse(str(guard), AT) == guard for guard in guards)


def test_normal_form() -> None:
    equal = [
        (B * D, D * B),
        (2 * (B + D) - B, B + 2 * D),
        ((B * D) // D, B),
        ((4 * B) // 2, 2 * B),
        ((4 * B) % 2, Dim(0)),
        (B * 0 + 3, Dim(3)),
        (0 - (0 - B), B),
        (B**2, B * B),
        (B << 3, 8 * B),
        (B >> 2, B // 4),
        (B - B, Dim(0)),
    ]
    for left, right in equal:
        assert left.expr == right.expr, (left, right)
    spelled = {
        "block_size*head_dim + 1": B * D + 1,
        "block_size//4": B // 4,
        "2*(block_size//4)": 2 * (B // 4),
        "(block_size + 1)//head_dim": (B + 1) // D,
        "-block_size": -B,
        "-(block_size//head_dim) + 2": 2 - B // D,
        "block_size%16": B % 16,
    }
    for text, size in spelled.items():
        assert str(size) == text
    assert (B // 4).expr != (B // 5).expr
    assert not Dim(7).symbolic
    assert repr(Dim(7)) == "7"


@pytest.mark.parametrize(
    ("ask", "guard"),
    [
        (lambda: float(D), "head_dim == 128"),
        (lambda: int(G), "group == 4"),
        (lambda: math.sqrt(D), "head_dim == 128"),
        (lambda: 1 / D, "head_dim == 128"),
        (lambda: D / 2.0, "head_dim == 128"),
        (lambda: D**0.5, "head_dim == 128"),
        (lambda: 2**G, "group == 4"),
        (lambda: D.bit_length(), "head_dim == 128"),
        (lambda: G | 1, "group == 4"),
        (lambda: G * 1.5, "group == 4"),
        (lambda: B % 16 == 0, "block_size%16 == 0"),
        (lambda: B > 31, "block_size <= 31"),
        (lambda: max(B, 8), "block_size >= 8"),
        (lambda: D != B, "block_size - head_dim != 0"),
        (lambda: f"{G:03d}", "group == 4"),
        (lambda: divmod(B, 16)[1] == 0, "block_size%16 == 0"),
    ],
)
def test_plain_answers_leave_a_guard(ask: Callable[[], object], guard: str) -> None:
    guards: dict[Guard, None] = {}
    with recording(guards):
        ask()
    assert [str(found) for found in guards] == [guard]


def test_certain_answers_leave_none() -> None:
    guards: dict[Guard, None] = {}
    with recording(guards):
        assert B >= 1
        assert D > 0
        assert B == B
        assert B * D == D * B
        assert B != 0
        assert B + 1 > 1
        assert B % 8 < 8
        assert bool(B)
        assert str(B) == "block_size"
        assert Dim(3) == 3
        assert B // 3 >= 0
    assert not guards


def test_nothing_is_recorded_outside_of_a_trace() -> None:
    assert B == 16
    assert {B: 1}[16] == 1  # type: ignore[index]


def test_sizes_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(B // 4))
    assert (again, again.expr) == (4, (B // 4).expr)


@pytest.mark.parametrize(
    "text", ["", "x", "block_size +", "f(1)", "1.5", "True", "'a'", "block_size ** 2", "1" * 500]
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text, AT)


def product(size: Any) -> None:
    for _ in range(100):
        size = size * (B + D)


def quotient(size: Any) -> None:
    for _ in range(1000):
        size = size // (D + 1) % (B + 7)


@pytest.mark.parametrize("grow", [product, quotient])
def test_expressions_stay_small(grow: Callable[[Any], None]) -> None:
    with pytest.raises(FlowTypeError, match="grown beyond any real size"):
        grow(B)
    with pytest.raises(ExpressionError):
        _ = Expr.of(2**40) * Expr.of("group") * Expr.of(2**40)
