"""Corrections of Triton 3.6's interpreter, so that it computes what a GPU does: conversions between number
formats round to the nearest (they truncate there, or lose the carry), products of bfloat16 are of numbers
(there, of their bit patterns), reductions with a function of one's own run on whole slices, and loops whose
bounds were loaded run with numpy 2.4. Calls of functions take a fraction of their time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_FORMATS = {
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float32: torch.float32,
    tl.float64: torch.float64,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}
_NARROW = (tl.float8e4nv, tl.float8e5)
_patch_lang_tensor = interpreter._patch_lang_tensor
_launch = interpreter.GridExecutor.__call__
_SEEN: set[int] = set()
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def repair() -> None:
    """Put the corrections in place; any number of times."""
    interpreter._convert_float = _converted
    interpreter.InterpreterBuilder.create_dot = _dot
    interpreter.InterpreterBuilder.get_bf16 = lambda self, value: _handle(
        _bits(torch.tensor([float(value)], dtype=torch.bfloat16)), tl.bfloat16
    )
    interpreter.ReduceOps.generic_reduce = _reduced
    interpreter.ScanOps.generic_scan = _scanned
    interpreter._patch_lang_tensor = _patched
    interpreter.InterpretedFunction.__call__ = _called
    interpreter.GridExecutor.__call__ = _launched


def _patched(tensor: Any, scope: Any) -> None:
    """A scalar, which is an array of one number there, as an int."""
    _patch_lang_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _launched(self: Any, *args: Any, **kwargs: Any) -> None:
    """Infinities and NaN come without a warning, as on a GPU."""
    with np.errstate(all="ignore"):
        _launch(self, *args, **kwargs)


def _called(self: Any, *args: Any, **kwargs: Any) -> Any:
    """A function that a kernel calls. What it sees of the language is replaced once: the launch does the rest
    for its kernel's module (there it is all done again in every call)."""
    if id(self.fn.__globals__) not in _SEEN:
        interpreter._patch_lang(self.fn)
        _SEEN.add(id(self.fn.__globals__))
    return self.rewrite()(*args, **kwargs)


def _converted(data: np.ndarray, source: tl.dtype, target: tl.dtype, rounding: Any) -> np.ndarray:
    """The bit patterns of `data` in another format, rounded to the nearest, ties to even; what an 8-bit
    format cannot hold becomes its largest number, as in PTX (`cvt.rn.satfinite`)."""
    numbers = _numbers(data, source)
    if rounding == interpreter._ir.ROUNDING_MODE.RTZ:
        raise NotImplementedError("rounding towards zero")
    if target in _NARROW:
        most = torch.finfo(_FORMATS[target]).max
        numbers = numbers.clamp(-most, most)
    return _bits(numbers.to(_FORMATS[target]))


def _numbers(data: np.ndarray, format: tl.dtype) -> torch.Tensor:
    return torch.from_numpy(np.array(data, copy=True)).view(_FORMATS[format])


def _bits(numbers: torch.Tensor) -> np.ndarray:
    kind = _BITS[numbers.itemsize]
    return np.asarray(numbers.contiguous().view(getattr(torch, np.dtype(kind).name)).numpy())


def _handle(data: np.ndarray, format: tl.dtype) -> Any:
    return interpreter.TensorHandle(data, format)


def _dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
    """Exact products, float32 sums; one format for both operands, as on a GPU."""
    wide = [_numbers(x.data, x.dtype.scalar).float() if x.dtype.is_floating() else x.data for x in (a, b)]
    left, right = (np.asarray(x) for x in wide)
    return _handle(np.matmul(left, right, dtype=d.data.dtype) + d.data, d.dtype.scalar)


def _reduced(self: Any, given: Any) -> list[Any]:
    """Folds along the axis, a slice at a time."""
    flat, axis = self.unravel(given, self.axis)
    parts = [arg.handle.data for arg in flat]
    kinds = [arg.dtype for arg in flat]
    folded = [np.take(part, 0, axis) for part in parts]
    for at in range(1, parts[0].shape[axis]):
        folded = _combined(self, folded, [np.take(part, at, axis) for part in parts], kinds)
    if self.keep_dims:
        shape = [1] * given[0].handle.data.ndim
        folded = [np.expand_dims(x, axis) if self.axis is not None else x.reshape(shape) for x in folded]
    return [self.to_tensor(x if x.ndim else x.item(), kind) for x, kind in zip(folded, kinds, strict=True)]


def _scanned(self: Any, given: Any) -> list[Any]:
    """The same, keeping every partial result."""
    parts = [arg.handle.data for arg in given]
    kinds = [arg.dtype for arg in given]
    kept = [[np.take(part, 0, self.axis) for part in parts]]
    for at in range(1, parts[0].shape[self.axis]):
        kept.append(_combined(self, kept[-1], [np.take(part, at, self.axis) for part in parts], kinds))
    return [
        self.to_tensor(np.stack(column, self.axis), kind)
        for column, kind in zip(zip(*kept, strict=True), kinds, strict=True)
    ]


def _combined(
    self: Any, left: Sequence[np.ndarray], right: Sequence[np.ndarray], kinds: Sequence[tl.dtype]
) -> list[np.ndarray]:
    combine: Callable[..., Any] = self.combine_fn.fn
    operands = [self.to_tensor(x, kind) for x, kind in zip((*left, *right), (*kinds, *kinds), strict=True)]
    found = combine(*operands)
    found = found if isinstance(found, tuple) else (found,)
    return [np.asarray(x.handle.data).reshape(like.shape) for x, like in zip(found, left, strict=True)]
