"""Two texts of one rule have one identity; two rules have two."""

from __future__ import annotations

import itertools
import time

import pytest

from vortex.budget import DEFAULT_POLICY, default_policy, parse_policy

SAME = [
    [
        DEFAULT_POLICY,
        "return max(topk_val+block_reserved_bos+block_reserved_eos,(int)(cached_block_len*topk_ratio));",
        "return max(int(topk_ratio * cached_block_len), block_reserved_eos + (topk_val+block_reserved_bos));",
        "int fixed = topk_val + block_reserved_bos; // the floor\nfixed += block_reserved_eos;\n"
        "const int part = static_cast<int>(float(cached_block_len) * topk_ratio);\nreturn max(fixed, part);",
    ],
    [
        "if (cached_block_len > 64) return 8; return 4;",
        "if (64 < cached_block_len) { return 8; } else { return 4; }",
        "return cached_block_len > 64 ? 8 : 4;",
        "int k = 4; if (cached_block_len > 64) k = 8; return k;",
        "const int k = cached_block_len > 64 ? 2 * 4 : 2 + 2; int unused = k * 3; return (((k)));",
        "if (!(cached_block_len > 64)) return 4; return 8;",
    ],
    ["return 3 + 4;", "return 7; return 9;", "if (true) return 7; return cached_block_len;", "return 0x7;"],
    ["return int(topk_ratio * 0.5f);", "float half = .5f; return topk_ratio * half;"],
    [
        "return 7;",
        "int k = 3; return k + 4;",
        "float x = 7.9f; return x;",
        "int k = 7; float x = k; return x;",
    ],
    [
        "return topk_ratio > 3;",
        "return topk_ratio > 3 ? true : false;",
        "return !!(topk_ratio > 3);",
        "return !(topk_ratio > 3 ? false : true);",
    ],
]
DIFFERENT = [
    "return topk_val;", "return topk_val + 1;", "return block_reserved_bos;", "return int(topk_ratio * 0.5);",
    "return int(topk_ratio * 0.5f);", "return topk_val / 3 * 3;", "return topk_val * 3 / 3;",
    "return topk_val > 3;",
    "return topk_val >= 3;", "return max(topk_val, 3);", "return min(topk_val, 3);", "return 3 - topk_val;",
    "return topk_val - 3;", "return topk_val << 3;", "return topk_val >> 3;",
    "if (topk_val > 3) return 1; return 2;",
    "if (topk_val > 3) return 2; return 1;",
    "return topk_val > 3 ? false : topk_ratio > 3;", "return topk_val > 3 ? topk_ratio > 3 : false;",
]  # fmt: skip


@pytest.mark.parametrize("texts", SAME)
def test_one_rule_has_one_canonical_text(texts: list[str]) -> None:
    assert len({parse_policy(t).canonical() for t in texts}) == 1


def test_different_rules_have_different_canonical_texts() -> None:
    texts = [parse_policy(t).canonical() for t in DIFFERENT]
    for (a, first), (b, second) in itertools.combinations(zip(DIFFERENT, texts, strict=True), 2):
        assert first != second, (a, b)


def test_the_default_is_recognised_in_other_words() -> None:
    assert all(parse_policy(t).is_default for t in SAME[0])
    assert not parse_policy("return topk_val;").is_default
    assert default_policy().canonical().splitlines()[-1] == "return #4"


def test_a_doubling_chain_stays_small() -> None:
    text = "int a = topk_val;" + "a += a;" * 200 + "float b = a;" + "b += b * b;" * 150 + "return a + int(b);"
    start = time.perf_counter()
    assert len(parse_policy(text).canonical()) < 40_000
    assert time.perf_counter() - start < 2
