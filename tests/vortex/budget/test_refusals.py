"""Everything outside the subset is refused where it stands, with what is allowed instead."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vortex.budget import parse_policy
from vortex.errors import PolicyError

CASES: list[tuple[str, int, int, str]] = [
    ("int k = 0;\nfor (int i = 0; i < 3; i++) k += i;\nreturn k;", 2, 1, "a loop"),
    ("while (1) {}\nreturn 1;", 1, 1, "a loop"),
    ("do { } while (0); return 1;", 1, 1, "a loop"),
    ("again: return 1;", 1, 1, "labeled statement"),
    ("goto end; return 1;", 1, 1, "goto"),
    ("switch (topk_val) { default: return 1; }", 1, 1, "switch"),
    ("int *p = &topk_val; return *p;", 1, 5, "not allowed"),
    ("int &r = topk_val; return r;", 1, 5, "not allowed"),
    ("return *topk_val;", 1, 8, "a pointer"),
    ("return topk_val[0];", 1, 8, "an array access"),
    ("int a[3]; return 1;", 1, 5, "an array"),
    ("return printf(1);", 1, 8, "calling 'printf'"),
    ("return\n  __float2int_rn(topk_ratio);", 2, 3, "calling '__float2int_rn'"),
    ("return std::max(1, 2);", 1, 8, "calling 'std::max'"),
    ("return schedule_policy(1, 2, 3, 4, 5);", 1, 8, "calling 'schedule_policy'"),
    ("int f(int); return 1;", 1, 5, "a function declaration"),
    ("#include <cstdio>\nreturn 1;", 1, 1, "#include"),
    ("#define k 3\nreturn k;", 1, 1, "not allowed"),
    ("#if 1\nreturn 1;\n#endif", 1, 1, "not allowed"),
    ('asm("trap;"); return 1;', 1, 1, "assembly"),
    ('asm volatile("trap;"); return 1;', 1, 1, "assembly"),
    ("return 1; } int other() { return 2;", 1, 13, "outside"),
    ("return 1; } __global__ void kernel() {", 1, 13, "outside"),
    ("return 1; } ; {", 1, 13, "outside"),
    ("return [] { return 1; }();", 1, 8, "not allowed"),
    ("auto f = [](int a) { return a; }; return 1;", 1, 1, "not allowed"),
    ("[[likely]] return 1;", 1, 1, "an attribute"),
    ("__attribute__((unused)) int a = 1; return a;", 1, 1, "not allowed"),
    ("return 1, 2;", 1, 8, "the comma operator"),
    ("return (topk_val, 2);", 1, 9, "the comma operator"),
    ("return 1;\0", 1, 10, "NUL"),
    ("int a = 1; // note \\\nreturn a;", 1, 20, "backslash-newline"),
    ("return " + "(" * 3000 + "1" + ")" * 3000 + ";", 1, 71, "nested too deeply"),
    ("{" * 3000 + "return 1;" + "}" * 3000, 1, 65, "nested too deeply"),
    ("return " + "-" * 1500 + "1;", 1, 8, ""),
    ("return 1" + "+1" * 3000 + ";", 1, 8, "nested too deeply"),
    ("if (1) " + "if (1) " * 1000 + "return 1; return 2;", 1, 446, "nested too deeply"),
    ("int a;" + "a=1;" * 1900 + "return a;", 1, 3999, "too long"),
    ("return 1; //" + "x" * 9000, 1, 1, "at most 8192"),
    ("return größe;", 1, 8, "only ASCII letters"),
    ("int größe = 1; return 1;", 1, 5, "only ASCII letters"),
    ("/* größe */ return x;", 1, 20, "unknown name 'x'"),
    ("return \ud800;", 1, 1, "Unicode"),
    ("return topk_value;", 1, 8, "unknown name 'topk_value'; did you mean 'topk_val'?"),
    ("{ int a = 1; } return a;", 1, 23, "unknown name 'a'"),
    ("int a = 1; int a = 2; return a;", 1, 16, "declared twice"),
    ("int topk_val = 1; return 1;", 1, 5, "declared twice"),
    ("int min = 1; return min;", 1, 5, "is a function"),
    ("const int a = 1; a = 2; return a;", 1, 18, "const"),
    ("const int a; return a;", 1, 11, "needs a value"),
    ("int a(3); return a;", 1, 5, "not allowed"),
    ("int a{3}; return a;", 1, 5, ""),
    ("static int a = 1; return a;", 1, 1, "not allowed"),
    ("volatile int a = 1; return a;", 1, 1, "volatile"),
    ("auto a = 1; return a;", 1, 1, "not allowed"),
    ("unsigned a = 1; return a;", 1, 1, "not allowed"),
    ("long a = 1; return a;", 1, 1, ""),
    ("char a = 1; return a;", 1, 1, "the type 'char'"),
    ("return (unsigned)1;", 1, 9, "not allowed"),
    ("return (uint8_t)1;", 1, 9, "the type 'uint8_t'"),
    ("return sizeof(int);", 1, 8, "not allowed"),
    ("return 010;", 1, 8, "the number '010'"),
    ("return 1u;", 1, 8, "the number '1u'"),
    ("return 0x1p3;", 1, 8, "the number '0x1p3'"),
    ("return int(1e400);", 1, 12, "too large"),
    ("return int(1e39f);", 1, 12, "too large"),
    ("return 2147483648;", 1, 8, "does not fit"),
    ("return 'a';", 1, 8, "not allowed"),
    ('return "a";', 1, 8, "a string"),
    ("return nullptr;", 1, 8, "not allowed"),
    ("return this;", 1, 8, "not allowed"),
    ("return new int;", 1, 8, "not allowed"),
    ("throw 1; return 1;", 1, 1, "not allowed"),
    ("return 1 <=> 2;", 1, 8, "'<=>'"),
    ("return 1 ?: 2;", 1, 8, "not allowed"),
    ("return topk_val = 3;", 1, 8, "not allowed"),
    ("return topk_val++;", 1, 8, "not allowed"),
    ("int a = topk_val = 2; return a;", 1, 9, "not allowed"),
    ("topk_val + 1; return 1;", 1, 1, "no effect"),
    ("return 1.5f % 2;", 1, 8, "needs int operands"),
    ("return 1.5f << 2;", 1, 8, "needs int operands"),
    ("return ~1.5f;", 1, 8, "'~'"),
    ("return 1 << 32;", 1, 8, "out of range 0..31"),
    ("return 1 >> -1;", 1, 8, "out of range 0..31"),
    ("return min(1);", 1, 8, "takes 2 arguments, not 1"),
    ("return abs(1, 2);", 1, 8, "takes 1 argument, not 2"),
    ("return min(topk_val < 2, 3 > (topk_val));", 1, 8, ""),
    ("if (int a = 1) return a; return 2;", 1, 5, ""),
    ("if constexpr (true) return 1; return 2;", 1, 1, ""),
    ("if (topk_val > 1) return 1;", 1, 28, "not every path returns"),
    ("int a = 1;", 1, 11, "not every path returns"),
    ("int a = 1;\nint b = a;", 2, 11, "not every path returns"),
    ("if (topk_val) {\n  return 1;", 2, 12, "'}' is missing"),
    ("return min(1 2);", 1, 14, "syntax error at '2'"),
    ("return min(1, 2, );", 1, 17, "'identifier' is missing"),
    ("return topk_val < 3 > (1);", 1, 8, "reads as a template: bracket the comparisons"),
    ("return (topk_val const) & 3;", 1, 8, "reads as a cast: drop its parentheses"),
    ("int a = 1; ++(a); return a;", 1, 12, "not allowed"),
    ("int a = 1; a and_eq 3; return a;", 1, 12, "not allowed"),
    ("int a = 1; if (a > 1) { ++ + */ 1; } return a;", 1, 31, "syntax error"),
    ("int a, , b; return 1;", 1, 6, "syntax error at ','"),
    ("if (1) return 1 else return 2;", 1, 8, "syntax error"),
    ("", 1, 1, "not every path returns"),
    ("return;", 1, 1, "not allowed"),
    ("return 1", 1, 9, "';' is missing"),
    ("return 1;\nreturn 2 +;", 2, 11, "is missing"),
    ("return 1; /* open", 1, 11, "syntax error"),
    ("return 1; }", 1, 1, ""),
    ("}", 1, 1, ""),
    ("import os", 1, 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "row", "column", "message"), CASES, ids=range(len(CASES)))
def test_refused_with_place_and_reason(text: str, row: int, column: int, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert message in str(caught.value)
    assert caught.value.row == row
    if message:
        assert caught.value.column == column


def test_a_refusal_says_what_is_allowed() -> None:
    with pytest.raises(PolicyError, match="Allowed: bool/int/float/double locals, assignment"):
        parse_policy("while (true) {}")


def test_importing_the_budget_does_not_load_the_parser() -> None:
    code = "import sys, vortex.budget; print([m for m in ('tree_sitter', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WORDS = [
    *"(){}[];,=<>?:+-*/%&|!~#@`$\\\0é", "int", "float", "const", "if", "else", "return", "==", "<=", "<<",
    ">>", "&&", "topk_val", "topk_ratio", "3", "0.5f", "'a'", '"b"', "for", "while", "auto", "struct",
    "template",
    "operator", "unsigned", "static_cast<int>", "min", "max", "//", "/*", "*/", "int*", "[[", "]]",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        policy = parse_policy(text)
    except PolicyError as error:
        place = (error.row, error.column)
    else:
        place = (1, 1)
        assert isinstance(policy.evaluate(100, 30, 0.1, 1, 1), int)
        assert policy.canonical()
        assert policy.cuda()
    assert min(place) >= 1
