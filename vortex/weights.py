"""Constants of a flow: arrays of float32 that a graph carries as data."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import sys
import textwrap
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any

from vortex.errors import shown

if TYPE_CHECKING:
    import torch

MAX_INLINE = 65_536
"""Elements of all constants that are written into a graph's JSON, or given as nested lists."""
LARGEST = 3.4028234663852886e38  # float32


class WeightError(ValueError):
    """A value that is no array of finite numbers; the message continues "must be"."""


@dataclass(frozen=True)
class Weight:
    """An immutable array, little-endian float32, row-major. Equal arrays are equal and share a digest."""

    shape: tuple[int, ...]
    digest: str
    data: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, value: object) -> Weight:
        """From nested lists, or an array of numpy or torch. Raises WeightError."""
        if isinstance(value, Weight):
            return value
        if hasattr(value, "detach"):  # torch
            value = value.detach().cpu().float().numpy()
        if hasattr(value, "astype"):  # numpy
            return cls._of_array(value)
        flat: list[float] = []
        shape = _flatten(value, flat, 0)
        return cls.of_bytes(shape, _little(array("f", flat)))

    @classmethod
    def _of_array(cls, value: Any) -> Weight:
        import numpy as np

        if value.dtype.kind not in "fiu":
            raise WeightError(f"real numbers, found an array of {value.dtype}")
        with np.errstate(over="ignore"):
            plain = np.ascontiguousarray(value, dtype="<f4") + np.float32(0.0)  # -0.0 becomes 0.0
        if not np.isfinite(plain).all():
            raise WeightError("finite float32 numbers")
        return cls.of_bytes(tuple(int(size) for size in plain.shape), plain.tobytes())

    @classmethod
    def of_bytes(cls, shape: Sequence[int], data: bytes) -> Weight:
        """Raises WeightError where the number of bytes is not that of the shape."""
        if any(size < 1 for size in shape) or len(data) != 4 * math.prod(shape):
            raise WeightError(f"{' x '.join(map(str, shape))} float32 numbers")
        digest = hashlib.sha256(f"{tuple(shape)}".encode() + data).hexdigest()
        return cls(tuple(shape), digest, data)

    @classmethod
    def of_text(cls, shape: Sequence[int], text: str) -> Weight:
        """The inverse of `text`, for data that is not trusted. Raises WeightError."""
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise WeightError("base64 of float32 numbers") from None
        weight = cls.of_bytes(shape, data)
        if not all(map(math.isfinite, weight.numbers())):
            raise WeightError("finite float32 numbers")
        return weight

    @property
    def text(self) -> str:
        """The data in base64."""
        return base64.b64encode(self.data).decode()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def numbers(self) -> array[float]:
        """The elements in row-major order."""
        return _native(self.data)

    def source(self, width: int = 90) -> str:
        """The elements as nested lists, in lines of about `width` characters."""
        items = [_shortest(number) for number in self.numbers()]
        for size in reversed(self.shape):
            items = [f"[{', '.join(items[at : at + size])}]" for at in range(0, len(items), size)]
        return "\n".join(textwrap.wrap(items[0], width, break_long_words=False, break_on_hyphens=False))

    def torch(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """The array as a tensor, copied to each device once. Not to be written to."""
        return _tensor(self, str(device))

    def __repr__(self) -> str:
        return f"<{' x '.join(map(str, self.shape))} numbers, {self.digest[:8]}>"


@lru_cache(maxsize=256)
def _tensor(weight: Weight, device: str) -> torch.Tensor:
    import torch

    flat = torch.frombuffer(bytearray(weight.data), dtype=torch.float32)
    return flat.view(weight.shape).to(device)


def _shortest(number: float) -> str:
    """The shortest decimal that is this float32."""
    for digits in range(1, 9):
        text = repr(float(f"{number:.{digits}g}"))
        if array("f", [float(text)])[0] == number:
            return text
    return repr(number)


def float32(value: Real) -> float | None:
    """`value` as a float that float32 can hold (-0.0 as 0.0), or None."""
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        return None
    return number + 0.0 if math.isfinite(number) and abs(number) <= LARGEST else None


def _flatten(value: object, flat: list[float], depth: int) -> tuple[int, ...]:
    """Appends the elements of nested lists to `flat` and returns their shape."""
    if isinstance(value, (list, tuple)):
        if not value or depth > 4:
            raise WeightError("nested lists of numbers, at most four deep and none of them empty")
        shapes = {_flatten(item, flat, depth + 1) for item in value}
        if len(shapes) > 1:
            raise WeightError("nested lists of equal lengths")
        return (len(value), *shapes.pop())
    if isinstance(value, bool) or not isinstance(value, Real):
        raise WeightError(f"numbers, found {shown(value)}")
    number = float32(value)
    if number is None:
        raise WeightError("finite float32 numbers")
    if len(flat) >= MAX_INLINE:
        raise WeightError(f"at most {MAX_INLINE} numbers in lists; larger ones are arrays of numpy or torch")
    flat.append(number)
    return ()


def _native(data: bytes) -> array[float]:
    numbers = array("f", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _little(numbers: array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers = array("f", numbers)
        numbers.byteswap()
    return numbers.tobytes()
