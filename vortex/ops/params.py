"""Constructor parameters of ops: what is accepted, and how it is normalised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vortex.dims import Dim
from vortex.errors import FlowTypeError
from vortex.graph.model import Attr, Stage

LARGEST = 3.4028234e38  # float32
REQUIRED = object()


@dataclass(frozen=True)
class Param:
    """One constructor parameter; subclasses say what it accepts. `ignored`: accepted for compatibility,
    without effect."""

    name: str
    default: object = REQUIRED
    ignored: bool = False
    annotation = "object"

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def coerce(self, value: object, stage: Stage) -> Attr:
        raise NotImplementedError

    def refuse(self, value: object, wanted: str, hint: str | None = None) -> FlowTypeError:
        shown = repr(value)
        return FlowTypeError(f"{self.name} must be {wanted}, got {shown[:60]}", hint=hint)

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={self.default!r}"


@dataclass(frozen=True)
class FloatParam(Param):
    """A finite float32 number."""

    annotation = "float"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value, "a number")
        number = float(value)
        if not math.isfinite(number) or abs(number) > LARGEST:
            raise self.refuse(value, "a finite float32 number", "For 'never', use -1e30")
        return number + 0.0  # -0.0 becomes 0.0


@dataclass(frozen=True)
class IntParam(Param):
    """An integer, possibly symbolic, at least `minimum`."""

    minimum: int | None = None
    annotation = "int"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(value, "an integer")
        size = Dim.of(value)
        if abs(size.hint) > 2**31 or (self.minimum is not None and size.hint < self.minimum):
            raise self.refuse(
                value, f"at least {self.minimum}" if self.minimum is not None else "a 32-bit integer"
            )
        return size


@dataclass(frozen=True)
class AxisParam(Param):
    """The axis to work along: 1 or 2 are inner dims, 0 is the blocks of a row and exists in the indexer
    only."""

    choices: Mapping[Stage, tuple[int, ...]] | None = None
    hint: str | None = None
    annotation = "int"

    def needed(self) -> AxisParam:
        return replace(self, default=REQUIRED)

    def coerce(self, value: object, stage: Stage) -> Attr:
        choices = (self.choices or {}).get(stage, (1, 2))
        plain = value.hint if isinstance(value, Dim) else value
        if isinstance(plain, bool) or plain not in choices:
            hint = self.hint if stage is Stage.CACHE and plain == 0 else None
            raise self.refuse(value, f"one of {', '.join(map(str, choices))}", hint)
        return Dim(int(plain))


@dataclass(frozen=True)
class AxesParam(Param):
    """One or several of the inner axes, as a sorted tuple."""

    annotation = "int | tuple[int, ...]"

    def coerce(self, value: object, stage: Stage) -> Attr:
        axes = value if isinstance(value, (tuple, list)) else (value,)
        if (
            not axes
            or any(isinstance(axis, bool) or axis not in (1, 2) for axis in axes)
            or len(set(axes)) < len(axes)
        ):
            raise self.refuse(value, "(1, 2), (1,) or (2,)")
        return tuple(Dim(int(axis)) for axis in sorted(axes))
