"""Constructor parameters of ops: what is accepted, and how it is normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real

from vortex.dims import Dim
from vortex.errors import FlowTypeError, shown
from vortex.graph.model import Attr, Stage
from vortex.weights import Weight, WeightError, float32

REQUIRED = object()
MAX_LAYERS = 1024
"""Entries of a layer_lookup."""
_AXES = "Dim 0 is the blocks of a row, 1 the rows and 2 the columns of each block"
_ONE_BLOCK = (
    "The cache stage sees one block; reduce over blocks in forward_indexer, after vortex.indexer.Load"
)


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
        return FlowTypeError(f"{self.name} must be {wanted}, got {shown(value)}", hint=hint)

    def source(self, value: Attr) -> str:
        """The value as it is written in a flow file."""
        return source(value)

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={self.default!r}"


def source(value: Attr) -> str:
    """A value of an attribute as Python source."""
    if isinstance(value, tuple):
        return f"({', '.join(source(item) for item in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, Weight):
        return value.source()
    return str(value) if isinstance(value, Dim) else repr(value)


@dataclass(frozen=True)
class FloatParam(Param):
    """A finite float32 number."""

    annotation = "float"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self.refuse(value, "a number")
        number = float32(value)
        if number is None:
            raise self.refuse(value, "a finite float32 number", "For 'never', use -1e30")
        return number


@dataclass(frozen=True)
class IntParam(Param):
    """An integer, possibly symbolic, at least `minimum`."""

    minimum: int | None = None
    hint: str | None = None
    annotation = "int"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise self.refuse(value, "an integer", self.hint)
        size = Dim.of(value if isinstance(value, int) else int(value))
        if abs(size.hint) >= 2**31:
            raise self.refuse(value, "a 32-bit integer", self.hint)
        if self.minimum is not None and size.hint < self.minimum:
            raise self.refuse(value, f"at least {self.minimum}", self.hint)
        return size


@dataclass(frozen=True)
class AxisParam(Param):
    """The axis to work along: 1 or 2 are inner dims, 0 is the blocks of a row and exists in the indexer
    only."""

    choices: Mapping[Stage, tuple[int, ...]] | None = None
    annotation = "int"

    def needed(self) -> AxisParam:
        return replace(self, default=REQUIRED)

    def coerce(self, value: object, stage: Stage) -> Attr:
        choices = (self.choices or {}).get(stage, (1, 2))
        plain = value.hint if isinstance(value, Dim) else value
        if isinstance(plain, bool) or not isinstance(plain, int) or plain not in choices:
            listed = " or ".join(map(str, choices)) if len(choices) < 3 else f"one of {str(choices)[1:-1]}"
            raise self.refuse(value, listed, _ONE_BLOCK if stage is Stage.CACHE and plain == 0 else _AXES)
        return Dim(plain)


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


@dataclass(frozen=True)
class WeightParam(Param):
    """An array of one of the `ranks`: nested lists, or an array of numpy or torch. Optional if the default is
    None."""

    ranks: tuple[int, ...] = (3,)
    axes: str = ""
    annotation = "Any"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if value is None and not self.required:
            return None
        try:
            weight = Weight.of(value)
        except WeightError as error:
            raise FlowTypeError(f"{self.name} must be {error}", hint=f"Give it as {self.axes}") from None
        if len(weight.shape) not in self.ranks:
            shape = str(list(weight.shape)) if weight.shape else "a single number"
            raise FlowTypeError(
                f"{self.name} has the shape {shape}", hint=f"Give it as {self.axes}, nested lists or an array"
            )
        return weight


@dataclass(frozen=True)
class LookupParam(Param):
    """Model layer -> row of the weights, as a dict, or as a list with the row of every layer (None or -1: no
    row). Kept as sorted pairs."""

    annotation = "Any"

    def coerce(self, value: object, stage: Stage) -> Attr:
        if value is None:
            return None
        if hasattr(value, "tolist"):  # an array of numpy or torch
            value = value.tolist()
        if isinstance(value, Mapping):
            pairs = list(value.items())
        elif isinstance(value, (list, tuple)):
            whole = bool(value) and all(isinstance(item, (list, tuple)) and len(item) == 2 for item in value)
            pairs = [tuple(pair) for pair in value] if whole else list(enumerate(value))
        else:
            raise self.refuse(value, "a dict of layer to row, or a list with the row of every layer")
        kept = [(layer, row) for layer, row in pairs if row not in (None, -1)]
        if len(kept) > MAX_LAYERS:
            raise FlowTypeError(f"{self.name} has {len(kept)} layers", hint=f"Give at most {MAX_LAYERS}")
        for pair in kept:
            if any(
                isinstance(n, bool) or not isinstance(n, Integral) or not 0 <= int(n) < 2**16 for n in pair
            ):
                raise self.refuse(value, "a dict of layer to row, both from 0")
        if len({int(layer) for layer, _ in kept}) < len(kept):
            raise self.refuse(value, "a dict of layer to row, each layer once")
        return tuple((Dim(int(layer)), Dim(int(row))) for layer, row in sorted(kept))

    def source(self, value: Attr) -> str:
        return repr(value) if value is None else repr(lookup(value))


def lookup(value: Attr) -> dict[int, int]:
    """The mapping that a coerced LookupParam stands for; empty for None."""
    pairs = value if isinstance(value, tuple) else ()
    return {int(pair[0]): int(pair[1]) for pair in pairs if isinstance(pair, tuple)}  # type: ignore[arg-type]


DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class DtypeParam(Param):
    """A number format: a dtype of torch, or its name."""

    annotation = "Any"

    def coerce(self, value: object, stage: Stage) -> Attr:
        name = str(value).removeprefix("torch.")
        if name not in DTYPES:
            raise self.refuse(value, f"one of {', '.join(DTYPES)}")
        return name


@dataclass(frozen=True)
class AnyParam(Param):
    """Accepted for compatibility, whatever it is."""

    ignored: bool = True
    annotation = "Any"

    def coerce(self, value: object, stage: Stage) -> Attr:
        return None
