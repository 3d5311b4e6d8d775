"""A policy tree as CUDA C++, written from the tree alone.

The `_rn` and `_rz` intrinsics keep the compiler from contracting a product and a sum into an fma, and
unsigned arithmetic keeps int overflow defined, so that the device computes what `scalar.py` computes.
Compile without `-ftz=true` or `--use_fast_math`: those change what small numbers mean.

What takes many instructions is called, not inlined: a policy of 8 KB would keep nvcc busy for a minute.
"""

from __future__ import annotations

from vortex.budget.tree import PARAMETERS, Assign, Cast, Const, CType, Expr, If, Stmt, Tree, Var

FUNCTION = "schedule_policy"

PRELUDE = """\
namespace vortex_budget {
__device__ __forceinline__ int add(int a, int b) { return (int)((unsigned)a + (unsigned)b); }
__device__ __forceinline__ int sub(int a, int b) { return (int)((unsigned)a - (unsigned)b); }
__device__ __forceinline__ int mul(int a, int b) { return (int)((unsigned)a * (unsigned)b); }
__device__ __forceinline__ int neg(int a) { return (int)(0u - (unsigned)a); }
__device__ __noinline__ int div(int a, int b) { return b == 0 ? 0 : b == -1 ? neg(a) : a / b; }
__device__ __noinline__ int rem(int a, int b) { return b == 0 ? a : b == -1 ? 0 : a % b; }
__device__ __forceinline__ int shl(int a, int b) { return (int)((unsigned)a << (b & 31)); }
__device__ __forceinline__ int shr(int a, int b) { return a >> (b & 31); }
__device__ __forceinline__ int abs(int a) { return a < 0 ? neg(a) : a; }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float sub(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __noinline__ float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float neg(float a) { return -a; }
__device__ __forceinline__ float abs(float a) { return fabsf(a); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double sub(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ __noinline__ double div(double a, double b) { return __ddiv_rn(a, b); }
__device__ __forceinline__ double neg(double a) { return -a; }
__device__ __forceinline__ double abs(double a) { return fabs(a); }
template <typename T> __device__ __forceinline__ T min(T a, T b) { return b < a || a != a ? b : a; }
template <typename T> __device__ __forceinline__ T max(T a, T b) { return b > a || a != a ? b : a; }
__device__ __noinline__ float sqrt(float a) { return __fsqrt_rn(a); }
__device__ __noinline__ float log2(float a) { return __double2float_rn(::log2((double)a)); }
template <typename T> __device__ __forceinline__ int to_int(T a) { return (int)a; }
__device__ __forceinline__ int to_int(float a) { return a != a ? 0 : __float2int_rz(a); }
__device__ __forceinline__ int to_int(double a) { return a != a ? 0 : __double2int_rz(a); }
template <typename T> __device__ __forceinline__ float to_float(T a) { return (float)a; }
__device__ __forceinline__ float to_float(int a) { return __int2float_rn(a); }
__device__ __forceinline__ float to_float(double a) { return __double2float_rn(a); }
template <typename T> __device__ __forceinline__ double to_double(T a) { return (double)a; }
template <typename T> __device__ __forceinline__ bool to_bool(T a) { return a != (T)0; }
}  // namespace vortex_budget
"""

_CALLS = {
    "+": "add", "-": "sub", "*": "mul", "/": "div", "%": "rem", "<<": "shl", ">>": "shr",
    "neg": "neg", "abs": "abs", "min": "min", "max": "max", "sqrt": "sqrt", "log2": "log2",
}  # fmt: skip


def _const(e: Const) -> str:
    if e.type is CType.BOOL:
        return "true" if e.value else "false"
    if e.type is CType.INT:
        return str(int(e.value))
    return float(e.value).hex() + ("f" if e.type is CType.FLOAT else "")


def _expression(e: Expr) -> str:
    if isinstance(e, Const):
        return _const(e)
    if isinstance(e, Var):
        return f"v{e.slot}"
    if isinstance(e, Cast):
        return f"vortex_budget::to_{e.type}({_expression(e.value)})"
    args = [_expression(a) for a in e.args]
    if e.op in _CALLS:
        return f"vortex_budget::{_CALLS[e.op]}({', '.join(args)})"
    if e.op == "?:":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    return f"({e.op}{args[0]})" if len(args) == 1 else f"({args[0]} {e.op} {args[1]})"


def _statements(body: tuple[Stmt, ...], indent: str) -> list[str]:
    lines: list[str] = []
    for s in body:
        if isinstance(s, Assign):
            lines.append(f"{indent}v{s.slot} = {_expression(s.value)};")
        elif isinstance(s, If):
            lines.append(f"{indent}if ({_expression(s.condition)}) {{")
            lines += _statements(s.then, indent + "  ")
            if s.other:
                lines.append(f"{indent}}} else {{")
                lines += _statements(s.other, indent + "  ")
            lines.append(f"{indent}}}")
        else:
            lines.append(f"{indent}return {_expression(s.value)};")
    return lines


def emit(tree: Tree) -> str:
    """A translation unit with helpers and `__device__ int schedule_policy(int, int, float, int, int)`."""
    parameters = ", ".join(f"{t} v{i}" for i, (_, t) in enumerate(PARAMETERS))
    local = [f"  {t} v{i} = 0;" for i, t in enumerate(tree.slots) if i >= len(PARAMETERS)]
    head = f"__device__ __forceinline__ int {FUNCTION}({parameters}) {{"
    lines = [head, *local, *_statements(tree.body, "  "), "}"]
    return PRELUDE + "\n".join(lines) + "\n"
