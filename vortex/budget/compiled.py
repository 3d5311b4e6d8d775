"""A trusted user's `schedule_policy` that is outside of the checked subset, compiled and run on the CPU.

The body is that of a CUDA function, so nvcc compiles it for both sides (no GPU is needed); where there is no
nvcc, a C++ compiler does. The shared library is found again by the hash of its source. Code from a search
never comes here: candidates have policies of the checked subset only.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vortex.budget.policy import Rule, parse_policy
from vortex.build_cache import cache_folder, is_whole, make_folder
from vortex.config import VortexConfig
from vortex.errors import ConfigError, PolicyError

FILE = "schedule_policy"
"""What compilers call the file that the user's text is in."""
_DEFINITION = """\
#ifndef __CUDACC__
#include <cmath>
#include <cstdlib>
#define __host__
#define __device__
#define __forceinline__ inline
using std::abs;
template <typename A, typename B> static inline auto min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B> static inline auto max(A a, B b) { return a < b ? b : a; }
#endif
// Intrinsics whose result the CPU gives exactly; others stay device-only, which is an error.
namespace vortex_host {
__host__ __device__ static inline int to_int(float x) {
  return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x <= -2147483648.0f ? -2147483647 - 1 : (int)x;
}
__host__ __device__ static inline int popc(unsigned x) { int n = 0; for (; x; x &= x - 1) ++n; return n; }
__host__ __device__ static inline int clz(unsigned x) { int n = 32; for (; x; x >>= 1) --n; return n; }
}  // namespace vortex_host
#define __float2int_rn(x) vortex_host::to_int(rintf(x))
#define __float2int_rz(x) vortex_host::to_int(x)
#define __float2int_rd(x) vortex_host::to_int(floorf(x))
#define __float2int_ru(x) vortex_host::to_int(ceilf(x))
#define __int2float_rn(x) ((float)(int)(x))
#define __fadd_rn(x, y) ((float)(x) + (float)(y))
#define __fsub_rn(x, y) ((float)(x) - (float)(y))
#define __fmul_rn(x, y) ((float)(x) * (float)(y))
#define __fdiv_rn(x, y) ((float)(x) / (float)(y))
#define __popc(x) vortex_host::popc(x)
#define __clz(x) vortex_host::clz(x)
__host__ __device__ static inline int schedule_policy(int cached_block_len, int topk_val, float topk_ratio,
                                                      int block_reserved_bos, int block_reserved_eos) {
#line 1 "%(file)s"
%(body)s
}
"""
_EVALUATE = """\
extern "C" void evaluate(const int *cached_block_len, int rows, int topk_val, float topk_ratio,
                         int block_reserved_bos, int block_reserved_eos, int *blocks) {
  for (int row = 0; row < rows; ++row)
    blocks[row] = schedule_policy(cached_block_len[row], topk_val, topk_ratio, block_reserved_bos,
                                  block_reserved_eos);
}
"""
_CPP = ("-O2", "-fPIC", "-ffp-contract=off", "-Werror=return-type")
_COMPILERS: dict[str, tuple[str, ...]] = {
    "nvcc": (
        "-x", "cu", "--shared", "-O2", "--fmad=false", "-Xcompiler", "-fPIC,-ffp-contract=off",
        "-Werror", "cross-execution-space-call", "-diag-error", "940", "-diag-suppress", "177",
        "-Xlinker", "--no-undefined",
    ),
    "g++": ("-x", "c++", "-std=c++17", "-shared", *_CPP, "-Wl,--no-undefined"),
    "c++": ("-x", "c++", "-std=c++17", "-shared", *_CPP),
}  # fmt: skip
"""Flags of each compiler; the first that exists is used. nvcc's diagnostic 940 is a path without return, 177
an unused function."""
_PLACE = re.compile(rf"^{FILE}(?:\((\d+)\)|:(\d+):(\d+)): (?:fatal )?error", re.MULTILINE)
_COUNT = re.compile(r"^\d+ errors? detected in the compilation of .*$", re.MULTILINE)
_LONGEST_MESSAGE = 2000
_LONGEST_SECONDS = 120


@dataclass(frozen=True)
class CompiledPolicy:
    """A `schedule_policy` as machine code; loaded when it is first evaluated."""

    text: str
    library: Path = field(compare=False)

    def evaluate_many(
        self, cached_block_len: NDArray[Any], topk_val: int, topk_ratio: float, bos: int, eos: int
    ) -> NDArray[np.int32]:
        """Blocks for rows of `cached_block_len [rows]` blocks, before the limits of `chosen_blocks`."""
        lengths = np.ascontiguousarray(cached_block_len, dtype=np.int32)
        blocks = np.empty_like(lengths)
        self._function(lengths, len(lengths), topk_val, topk_ratio, bos, eos, blocks)
        return blocks

    def cuda(self) -> str:
        """CUDA C++ with `__host__ __device__ int schedule_policy(int, int, float, int, int)`."""
        return _definition(self.text)

    @cached_property
    def _function(self) -> Callable[..., None]:
        function = ctypes.CDLL(str(self.library)).evaluate
        rows = np.ctypeslib.ndpointer(np.int32, ndim=1, flags="C_CONTIGUOUS")
        number = ctypes.c_int
        function.argtypes = (rows, number, number, ctypes.c_float, number, number, rows)
        function.restype = None
        return function


def _definition(text: str) -> str:
    return _DEFINITION % {"file": FILE, "body": text}


def policy_of(config: VortexConfig) -> Rule | None:
    """The rule of `schedule_policy`, None for the default: a checked tree where it parses, otherwise
    compiled. Raises PolicyError with the compiler's message. What a search made (`module_path` is a graph)
    must parse: a graph is data, and so is all that comes with it."""
    text = config.schedule_policy
    if text is None:
        return None
    try:
        return parse_policy(text)
    except PolicyError:
        if config.module_path is not None and config.module_path.endswith(".json"):
            raise
    return compile_policy(text, cache_folder(config.compilation_cache_dir))


def compile_policy(text: str, folder: Path) -> CompiledPolicy:
    """The policy's library in `folder`, compiled unless it is there, whole. Any number of processes may ask
    at once. Raises PolicyError, or ConfigError for a folder that cannot be written."""
    source = _definition(text) + _EVALUATE
    key = hashlib.sha256(f"{platform.machine()}\n{_COMPILERS}\n{source}".encode()).hexdigest()
    library = folder / "policies" / f"{key}.so"
    try:
        if is_whole(library):
            return CompiledPolicy(text, library)
        command = _compiler()
        make_folder(library.parent)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            built = Path(scratch) / library.name
            _compile(command, source, built)
            built.replace(library)
    except OSError as error:
        raise ConfigError(f"compilation_cache_dir: cannot write {library.parent}: {error}") from None
    return CompiledPolicy(text, library)


def _compiler() -> list[str]:
    for name, flags in _COMPILERS.items():
        path = shutil.which(name)
        if path is not None:
            return [path, *flags]
    names = ", ".join(_COMPILERS)
    raise PolicyError(f"outside of the checked subset, a policy needs a compiler on PATH: one of {names}")


def _compile(command: list[str], source: str, library: Path) -> None:
    file = library.with_suffix(".cu")
    file.write_text(source)
    try:
        done = subprocess.run(
            [*command, str(file), "-o", str(library)],
            capture_output=True, text=True, errors="replace", check=False, cwd=library.parent,
            timeout=_LONGEST_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PolicyError(f"{Path(command[0]).name} needs more than {_LONGEST_SECONDS} s for it") from None
    if done.returncode == 0 and library.is_file():
        return
    said = _COUNT.sub("", done.stderr or done.stdout).strip().replace(f"{library.parent}/", "")
    place = _PLACE.search(said)
    row, column = (int(place[1] or place[2]), int(place[3] or 1)) if place else (1, 1)
    name = Path(command[0]).name
    raise PolicyError(f"{name} does not compile it: {said[:_LONGEST_MESSAGE]}", row, column)
