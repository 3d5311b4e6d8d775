"""The launches of Triton kernels as they are made: with `recording()`, each becomes a `Launch`, whose
signature is the one that Triton's own just-in-time compiler would take from its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from vortex.kernels.triton_setup import triton

Constant = bool | int | float | str | None
ALIGNMENT = 16
"""Pointers and integers that it divides are compiled for (`tt.divisibility`)."""
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
_NAMES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.float64: "fp64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}


@dataclass(frozen=True)
class Launch:
    """A kernel, by the file and the name of its function, and what it is compiled for.

    `signature`: the type of each parameter, "constexpr" for those in `constants`. `aligned`: parameters that
    ALIGNMENT divides. `grid` is not part of what is compiled.
    """

    file: str
    name: str
    signature: Mapping[str, str]
    constants: Mapping[str, Constant]
    aligned: tuple[str, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)
    grid: tuple[int, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Equal for launches that run the same code."""
        parts = (dict(self.signature), dict(self.constants), self.aligned, dict(self.options))
        return f"{self.file}:{self.name}{parts}"

    def as_json(self) -> dict[str, object]:
        return {
            "file": self.file,
            "name": self.name,
            "signature": dict(self.signature),
            "constants": dict(self.constants),
            "aligned": self.aligned,
            "options": dict(self.options),
        }


@contextmanager
def recording(run: bool = True) -> Iterator[list[Launch]]:
    """The launches made under the interpreter meanwhile, in order. Without `run`, kernels are not executed,
    which leaves their outputs as they are."""
    from triton.runtime.interpreter import InterpretedFunction

    made: list[Launch] = []
    original: Callable[..., Any] = InterpretedFunction.run

    def recorded(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        made.append(_launch(self.fn, args, kwargs, grid))
        return original(self, *args, grid=grid, warmup=warmup, **kwargs) if run else None

    InterpretedFunction.run = recorded
    try:
        yield made
    finally:
        InterpretedFunction.run = original


def _launch(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], grid: Any) -> Launch:
    parameters = inspect.signature(fn).parameters
    options = {name: kwargs[name] for name in OPTIONS if name in kwargs and name not in parameters}
    bound = inspect.signature(fn).bind(*args, **{k: v for k, v in kwargs.items() if k in parameters})
    bound.apply_defaults()
    signature, constants, aligned = {}, dict[str, Constant](), []
    for name, value in bound.arguments.items():
        constant = "constexpr" in str(parameters[name].annotation) or value is None
        if constant or (isinstance(value, int) and not isinstance(value, bool) and value == 1):
            signature[name], constants[name] = "constexpr", _constant(value)
            continue
        signature[name] = _type(value)
        if (value.data_ptr() if isinstance(value, torch.Tensor) else value) % ALIGNMENT == 0:
            aligned.append(name)
    shape = grid(dict(bound.arguments)) if callable(grid) else grid
    file = inspect.getsourcefile(fn)
    assert file is not None
    numbers = MappingProxyType(options)
    return Launch(file, fn.__name__, signature, constants, tuple(aligned), numbers, tuple(shape))


def _type(value: object) -> str:
    match value:
        case torch.Tensor():
            return f"*{_NAMES[value.dtype]}"
        case bool():
            return "i1"
        case int():
            return "i32" if -(2**31) <= value < 2**31 else "i64"
        case float():
            return "fp32"
        case _:
            raise TypeError(f"a kernel was launched with {type(value).__name__}")


def _constant(value: Any) -> Constant:
    plain = value.value if isinstance(value, triton.language.constexpr) else value
    if isinstance(plain, triton.language.dtype):
        return f"dtype:{plain}"
    assert plain is None or isinstance(plain, (bool, int, float, str)), f"{value!r} as a constant of a kernel"
    return plain
