"""What each construct of a policy computes, and how many blocks a row keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from vortex.budget import DEFAULT_POLICY, chosen_blocks, parse_policy

LOWEST, HIGHEST = -(2**31), 2**31 - 1
ADAPTIVE = """
const int base = topk_val + block_reserved_bos + block_reserved_eos;
int k = base + cached_block_len / 64;  // one more page per 64 cached pages
if (k > 256) { k = 256; }
return k;
"""


@dataclass(frozen=True)
class Budget:
    topk_val: int = 30
    topk_ratio: float = 0.0
    max_topk_val: int | None = None
    block_reserved_bos: int = 1
    block_reserved_eos: int = 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", 3), ("-7 / 2", -3), ("-7 % 2", -1), ("7 % -2", 1), ("7 / (topk_val - topk_val)", 0),
        ("7 % (topk_val - topk_val)", 7), ("2147483647 + 1", LOWEST), ("-2147483647 - 2", HIGHEST),
        ("(-2147483647 - 1) / -1", LOWEST), ("(-2147483647 - 1) % -1", 0), ("abs(-2147483647 - 1)", LOWEST),
        ("65536 * 65536 + 3", 3), ("1 << 31", LOWEST), ("1 << (topk_val + 2)", 1), ("-8 >> 1", -4),
        ("-1 >> 31", -1), ("0x1f & ~3", 28), ("6 ^ 3 | 8", 13), ("1 + 2 * 3 - 4 / 2", 5), ("2 - -3", 5),
        ("int(2.9f)", 2), ("(int)-2.9f", -2), ("static_cast<int>(3e9f)", HIGHEST), ("int(-3e9f)", LOWEST),
        ("int(0.0f / 0.0f)", 0), ("int(1.0f / 0.0f)", HIGHEST), ("16777217 == 16777216.0f", 1),
        ("16777217 == 16777216.0", 0), ("int(0.1f * 10.0f)", 1), ("int(0.7f * 10)", 7), ("int(0.7 * 10)", 7),
        ("int(16777216.0f + 1.0f)", 16777216), ("int(16777216.0 + 1.0)", 16777217), ("0.1f == 0.1", 0),
        ("int(sqrtf(2) * 1e6f)", 1414213), ("int(log2f(8))", 3), ("int(log2f(0.0f))", LOWEST),
        ("log2f(-1) > 0", 0),
        ("min(3, 4) + max(3, 4)", 7), ("int(min(2, 1.5f) * 2)", 3), ("int(max(0.0f / 0.0f, 2.5f) * 2)", 5),
        ("abs(-3) + int(abs(-3.5f))", 6), ("true + true", 2), ("!0 + !5", 1), ("3 && 0 || 2", 1),
        ("not 1 or 0 and 1", 0), ("+true + +topk_val", 31),
        ("(float)7 / 2 == 3.5f", 1), ("7 / 2 == 3.5f", 0), ("topk_val ? 5 : 6", 5), ("1 ? 2 : 0.5f", 2),
        ("(topk_val) & (3)", 2), ("(topk_val) - (3) * (2)", 24), ("cached_block_len -1", 99),
        ("1 < 2 == true", 1),
    ],
)  # fmt: skip
def test_an_expression_has_its_c_value(expression: str, value: int) -> None:
    policy = parse_policy(f"return {expression};")
    assert policy.evaluate(100, 30, 0.5, 1, 2) == value
    assert policy.evaluate_many(np.array([100, 100]), 30, 0.5, 1, 2).tolist() == [value, value]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("int a = 1, b = a + 2; a += b; b <<= 2; return a * 100 + b;", 412),
        ("int a = 3.9; float b = 7; a++; --b; return a * 10 + int(b);", 46),
        ("int a; if (topk_val > 3) a = 5; else a = 6; return a;", 5),
        ("int a; return a;", 0),
        ("int a = 1; { int a = 2; a = 3; } return a;", 1),
        ("topk_val -= 10; return topk_val;", 20),
        (
            "if (topk_val < 3) return 1; else if (topk_val < 40) {if (0) return 9;} else return 3; return 4;",
            4,
        ),
        ("const bool big = cached_block_len >= 100; if (big) return 1; return 0;", 1),
        ("float x = cached_block_len; x /= 3; x *= 3.0; return x == 100 ? 1 : 2;", 1),
        ("/* a */ return // b\n 8 /* c */ ; // naïve — fine in a comment", 8),
        (";; return 2;;", 2),
        ("return 1; return 2;", 1),
    ],
)
def test_statements(body: str, value: int) -> None:
    policy = parse_policy(body)
    assert policy.evaluate(100, 30, 0.5, 1, 2) == value
    assert policy.evaluate_many(np.array([100]), 30, 0.5, 1, 2).tolist() == [value]


def test_the_default_is_a_float32_product_truncated() -> None:
    n = np.arange(20000)
    got = chosen_blocks(None, n, Budget(topk_val=1, topk_ratio=0.7))
    product = [int(np.float32(i) * np.float32(0.7)) for i in n]
    assert got.tolist() == [min(i, max(3, p)) for i, p in zip(n, product, strict=True)]
    exact = [math.floor(i * float(np.float32(0.7))) for i in n]
    assert product != exact, "the lengths must include one where float32 and exact arithmetic part"


def test_the_adaptive_policy_grows_a_page_per_64_and_stops_at_256() -> None:
    n = np.array([1, 10, 32, 33, 64, 640, 14336, 14400, 100000])
    got = chosen_blocks(parse_policy(ADAPTIVE), n, Budget())
    assert got.tolist() == [1, 10, 32, 32, 33, 42, 256, 256, 256]


def test_a_budget_keeps_one_block_at_least_and_never_more_than_there_are() -> None:
    n = np.array([1, 2, 3, 4, 100])
    assert chosen_blocks(parse_policy("return -5;"), n, Budget()).tolist() == [1, 2, 3, 3, 3]
    assert chosen_blocks(parse_policy("return 1 << 30;"), n, Budget()).tolist() == n.tolist()
    many = Budget(block_reserved_bos=4, block_reserved_eos=2)
    assert chosen_blocks(parse_policy("return 0;"), n, many).tolist() == [1, 2, 3, 4, 7]


def test_a_policy_above_max_topk_val_is_cut_to_it_plus_the_reserved_blocks() -> None:
    n = np.array([10, 100, 1000])
    config = Budget(max_topk_val=20, topk_ratio=0.5)
    assert chosen_blocks(None, n, config).tolist() == [10, 22, 22]
    assert chosen_blocks(parse_policy("return 21;"), n, config).tolist() == [10, 21, 21]
    assert chosen_blocks(parse_policy(DEFAULT_POLICY), n, config).tolist() == [10, 22, 22]
