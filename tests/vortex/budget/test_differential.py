"""Random policies mean the same everywhere: one row at a time, vectorised, and compiled by a C++ compiler."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vortex.budget import Policy, parse_policy
from vortex.budget.tree import PARAMETERS
from vortex.errors import PolicyError

INTS = ["cached_block_len", "topk_val", "block_reserved_bos", "block_reserved_eos"]


class Writer:
    """Random policy texts; `plain` ones stay inside what C++ defines, so that the text can be compiled."""

    def __init__(self, seed: int, plain: bool) -> None:
        self.random, self.plain = random.Random(seed), plain
        self.locals: list[tuple[str, str]] = [("int", "seen")]

    def int_(self, depth: int) -> str:
        r = self.random
        if depth <= 0 or r.random() < 0.1:
            names = INTS + [n for t, n in self.locals if t == "int"]
            return r.choice([*names, *names, str(r.choice([0, 1, 2, 3, 7, 64, 1000, 2147483647]))])
        a, b = self.int_(depth - 1), self.int_(depth - 1)
        free = [
            f"{a} / ({b})",
            f"{a} % ({b})",
            f"({a}) << (topk_val - ({b}))",
            f"({a}) >> (topk_val + ({b}))",
            f"int({self.float_(depth - 1)})",
        ]
        plain = [f"({a}) / {r.choice([2, 3, 64])}", f"({a}) % 7", f"({a}) >> {r.randrange(31)}",
                 f"(int)max(min({self.float_(depth - 1)}, 1e6f), -1e6f)"]  # fmt: skip
        return r.choice([
            f"({a} + {b})", f"({a} - ({b}))", f"({a}) * ({b})", f"-({a})", f"~({a})", f"abs({a})",
            f"min({a}, {b})",
            f"max({a}, {b})", f"({a} & ({b}))", f"(({a}) | {b})", f"(({a}) ^ {b})",
            f"({self.bool_(depth - 1)} ? {a} : {b})",
            f"({self.bool_(depth - 1)} + {a})", *(plain if self.plain else free),
        ])  # fmt: skip

    def float_(self, depth: int) -> str:
        r = self.random
        if depth <= 0 or r.random() < 0.1:
            names = ["topk_ratio", *(n for t, n in self.locals if t == "float")]
            return r.choice([*names, "0.5f", "3.25f", "1e-3f", ".1f", "100.0", "0.1"])
        a, b = self.float_(depth - 1), self.float_(depth - 1)
        return r.choice([
            f"({a} + {b})", f"({a} - ({b}))", f"({a}) * ({b})", f"({a}) / ({b})", f"-({a})", f"abs({a})",
            f"sqrtf(abs({a}))", f"float({self.int_(depth - 1)})", f"({self.int_(depth - 1)}) * ({a})",
            f"min((float)({a}), (float)({b}))", f"({self.bool_(depth - 1)} ? {a} : {b})",
            *([] if self.plain else [f"log2f({a})", f"sqrtf({a})"]),
        ])  # fmt: skip

    def bool_(self, depth: int) -> str:
        r = self.random
        if depth <= 0:
            return r.choice(["true", f"({r.choice(INTS)} > {r.randrange(200)})"])
        number = r.choice([self.int_, self.float_])
        sign = r.choice(["<", "<=", ">", ">=", "==", "!="])
        return r.choice([
            f"(({number(depth - 1)}) {sign} ({number(depth - 1)}))", f"!({self.bool_(depth - 1)})",
            f"({self.bool_(depth - 1)} && {self.bool_(depth - 1)})",
            f"({self.bool_(depth - 1)} || {self.bool_(depth - 1)})",
        ])  # fmt: skip

    def block(self, depth: int, indent: str = "") -> str:
        r, lines, outer = self.random, [], list(self.locals)
        for _ in range(r.randrange(1, 5)):
            kind = r.randrange(4)
            if kind == 0:
                type = r.choice(["int", "float"])
                name = f"x{len(self.locals)}_{r.randrange(10**6)}"
                value = getattr(self, f"{type}_")(2)
                if self.plain or type == "float":
                    value = f"({type})({value})"
                lines.append(f"{type} {name} = {value};")
                self.locals.append((type, name))
            elif kind == 1 and self.locals:
                type, name = r.choice(self.locals)
                lines.append(f"{name} {r.choice(['=', '+=', '-='])} {getattr(self, f'{type}_')(2)};")
            elif kind == 2 and depth:
                other = f" else {{ {self.block(depth - 1)} }}" if r.random() < 0.5 else ""
                lines.append(f"if ({self.bool_(2)}) {{ {self.block(depth - 1)} }}{other}")
            elif r.random() < 0.3:
                lines.append(f"if ({self.bool_(2)}) return {self.int_(2)};")
        self.locals = outer
        return "\n".join(lines)

    def policy(self) -> str:
        return f"int seen = cached_block_len;\n{self.block(2)}\nreturn seen + {self.int_(3)};"


def read(writer: Writer) -> Policy | None:
    """None for the texts that C++'s grammar, without a table of names, takes for a cast to a pointer."""
    try:
        return parse_policy(writer.policy())
    except PolicyError as error:
        if "reads as a cast" in error.message:
            return None
        raise


def random_policies(first: int, count: int, plain: bool) -> list[Policy]:
    found = [read(Writer(seed, plain)) for seed in range(first, first + 2 * count)]
    return [p for p in found if p is not None][:count]


ARGUMENTS = st.tuples(
    st.integers(0, 2**31 - 1) | st.integers(0, 4096),
    st.integers(1, 512) | st.integers(-(2**31), 2**31 - 1),
    st.floats(0, 1, width=32) | st.floats(width=32),
    st.integers(1, 8),
    st.integers(1, 8),
)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32), rows=st.lists(st.integers(0, 5000), min_size=1, max_size=20), rest=ARGUMENTS
)
def test_vectorised_equals_one_row_at_a_time(
    seed: int, rows: list[int], rest: tuple[int, int, float, int, int]
) -> None:
    policy = read(Writer(seed, plain=False))
    assume(policy is not None)
    assert policy is not None
    lengths = np.array([*rows, rest[0]], dtype=np.int32)
    together = policy.evaluate_many(lengths, *rest[1:])
    assert together.dtype == np.int32
    assert together.tolist() == [policy.evaluate(int(n), *rest[1:]) for n in lengths]


HOST = """
#include <cmath>
#include <cstdint>
#define __device__
#define __forceinline__ inline
#define __noinline__
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static double __dadd_rn(double a, double b) { return a + b; }
static double __dsub_rn(double a, double b) { return a - b; }
static double __dmul_rn(double a, double b) { return a * b; }
static double __ddiv_rn(double a, double b) { return a / b; }
static float __fsqrt_rn(float a) { return sqrtf(a); }
static float __int2float_rn(int a) { return (float)a; }
static float __double2float_rn(double a) { return (float)a; }
static int __double2int_rz(double a) { 
  return a >= 2147483647. ? INT32_MAX : a <= -2147483648. ? INT32_MIN : (int)a; }
static int __float2int_rz(float a) { return __double2int_rz(a); }
"""
PLAIN = """
#include <cmath>
#include <type_traits>
template <typename A, typename B> static std::common_type_t<A, B, int> min(A a_, B b_) {
  std::common_type_t<A, B, int> a = a_, b = b_; return b < a || a != a ? b : a; }
template <typename A, typename B> static std::common_type_t<A, B, int> max(A a_, B b_) {
  std::common_type_t<A, B, int> a = a_, b = b_; return b > a || a != a ? b : a; }
using std::abs;
"""
EXPORT = """
extern "C" void many{i}(int rows, const int* n, const int* k, const float* r, int b, int e, int* out) {{
  for (int i = 0; i < rows; ++i) out[i] = p{i}::schedule_policy(n[i], k[i], r[i], b, e); }}
"""


def compile_and_compare(head: str, bodies: list[str], policies: list[Policy], folder: Path) -> int:
    """Compiles every body in a namespace of its own, runs all on random rows; returns the rows compared."""
    source = head + "".join(f"namespace p{i} {{ {b} }}\n{EXPORT.format(i=i)}" for i, b in enumerate(bodies))
    (folder / "policies.cpp").write_text(source)
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-fwrapv",
        "-ffp-contract=off",
        "-w",
        "-shared",
        "-fPIC",
        "policies.cpp",
    ]
    subprocess.run([*command, "-o", "policies.so"], cwd=folder, check=True, timeout=120)
    library = ctypes.CDLL(str(folder / "policies.so"))
    random_rows = np.random.default_rng(7)
    rows = 300
    for i, policy in enumerate(policies):
        n = random_rows.integers(0, 3000, rows).astype(np.int32)
        k = random_rows.integers(1, 400, rows).astype(np.int32)
        n[::17], k[::13] = 2**31 - 1, -(2**31)
        ratio = random_rows.random(rows).astype(np.float32)
        out = np.zeros(rows, dtype=np.int32)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (n, k, ratio)]
        getattr(library, f"many{i}")(rows, *pointers, 1, 2, ctypes.c_void_p(out.ctypes.data))
        expected = [
            policy.evaluate(int(a), int(b), float(c), 1, 2) for a, b, c in zip(n, k, ratio, strict=True)
        ]
        assert out.tolist() == expected, policy.text
    return rows * len(policies)


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")


@needs_compiler
def test_the_emitted_code_computes_what_the_tree_says(tmp_path: Path) -> None:
    policies = random_policies(0, 60, plain=False)
    assert compile_and_compare(HOST, [p.cuda() for p in policies], policies, tmp_path) == 18000


@needs_compiler
def test_the_tree_means_what_a_compiler_makes_of_the_authors_text(tmp_path: Path) -> None:
    policies = random_policies(1000, 60, plain=True)
    parameters = ", ".join(f"{t} {name}" for name, t in PARAMETERS)
    bodies = [f"static int schedule_policy({parameters}) {{\n{p.text}\n}}" for p in policies]
    assert compile_and_compare(PLAIN, bodies, policies, tmp_path) == 18000
