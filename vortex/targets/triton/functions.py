"""Functions that generated kernels call, as text: a module holds those that it uses."""

from __future__ import annotations

import re

from vortex.config import Dtype
from vortex.runtime.dtypes import CLAMP

_TEXTS: dict[str, str] = {
    "maximum": '''
@triton.jit
def maximum(x, y):
    """The larger one; NaN where either is."""
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
''',
    "minimum": '''
@triton.jit
def minimum(x, y):
    """The smaller one; NaN where either is."""
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)
''',
    "follow": '''
@triton.jit
def follow(EARLY: tl.constexpr):
    """Wait for the kernel before this one, then let the next one start: it finds all but this one done."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
''',
    "lead": '''
@triton.jit
def lead(EARLY: tl.constexpr):
    """Let the next kernel start, then wait for the one before: it finds what is older than the step."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
''',
    "fetch": '''
@triton.jit
def fetch(x, stride, ROWS: tl.constexpr, COLS: tl.constexpr, LINE: tl.constexpr, ROOM: tl.constexpr):
    """Have a matrix in the second level of the cache when it is read; it may be written until then, as the
    first level, where it would be stale, is passed by. ROOM: powers of two."""
    row = tl.minimum(tl.arange(0, ROOM[0])[:, None], ROWS - 1)
    col = tl.minimum(tl.arange(0, ROOM[1])[None, :] * LINE, COLS - 1)
    place = (x + row * stride + col).to(tl.int64)
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [place], tl.int32, False, 1)
''',
    "piece": '''
@triton.jit
def piece(chunks, item, items, room, HEADS: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr):
    """Request, first place and row of a piece of work: a tile of a chunk, of one head. Some piece, if the
    list, which has room for so many chunks, has no more (its length need not be known to read it)."""
    tile = item // HEADS
    chunk = tl.minimum(tile // (CHUNK // TILE), room - 1) * 2
    request = tl.where(item < items, tl.load(chunks + chunk), 0)
    start = tl.where(item < items, tl.load(chunks + chunk + 1), 0) + tile % (CHUNK // TILE) * TILE
    return request, start, (request * HEADS + item % HEADS).to(tl.int64)
''',
    "matmul": '''
@triton.jit
def matmul(a, b, total, EXACT: tl.constexpr, NARROW: tl.constexpr):
    """total + a b^T on tensor cores, as exact as float32: narrow where that holds the operands."""
    if EXACT and NARROW == 1:
        return tl.dot(a.to(tl.bfloat16), tl.trans(b.to(tl.bfloat16)), total)
    elif EXACT and NARROW == 2:
        return tl.dot(a.to(tl.float16), tl.trans(b.to(tl.float16)), total)
    else:
        return tl.dot(a.to(tl.float32), tl.trans(b.to(tl.float32)), total, input_precision="tf32x3")
''',
}

_FORMATS: dict[Dtype, str] = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "fp8_e4m3": "float8e4nv",
    "fp8_e5m2": "float8e5",
}


def _rounded(dtype: Dtype) -> str:
    head = f'\n@triton.jit\ndef rounded(x):\n    """x as {dtype} holds it, in float32."""\n'
    if dtype == "float32":
        return head + "    return x\n"
    limit = CLAMP.get(dtype)
    if limit is not None:
        head += f"    x = minimum(maximum(x, -{limit}), {limit})\n"
    return head + f"    return x.to(tl.{_FORMATS[dtype]}).to(tl.float32)\n"


def used_functions(body: str, dtype: Dtype) -> list[str]:
    """The functions that `body` calls, each after those that it calls itself."""
    texts = {**_TEXTS, "rounded": _rounded(dtype)}
    wanted = {name for name in texts if re.search(rf"\b{name}\b", body)}
    if "rounded" in wanted and dtype in CLAMP:
        wanted |= {"maximum", "minimum"}
    return [text.strip("\n") for name, text in texts.items() if name in wanted]
