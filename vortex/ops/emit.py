"""How an op becomes lines of a generated Triton kernel.

Values in a kernel are tiles `[blocks, rows, cols]`, padded to powers of two. An op writes its lines through a
`Writer`, which knows about the padding. Text only: nothing here imports triton or torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from vortex.ops.base import Args

How = Literal["max", "min", "sum"]


def power_of_two(size: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << (size - 1).bit_length()


@dataclass(frozen=True)
class Part:
    """Some columns of a tile: the variable that holds them, how many they are, and how many with padding."""

    name: str
    cols: int
    width: int

    @property
    def padded(self) -> bool:
        return self.cols != self.width


@dataclass(frozen=True)
class Tile:
    """A value: its columns in one or two parts (576 = 512 + 64, so that they need no padding to 1024), or in
    as many as they are.

    What stands in the padding has no meaning. `blocks`: whether it differs between the blocks of a row; if
    not, its first axis has size 1. `exact`: whether its numbers are surely numbers of the format that the
    query, the pool and the fields are stored in. `memory`: where one of its rows, `{row}`, is read, if it is
    a copy of something in memory. `room`: rows with padding, where they are more than they need to be.
    """

    rows: int
    parts: tuple[Part, ...]
    blocks: bool
    exact: bool = False
    memory: str = ""
    room: int = 0

    @property
    def cols(self) -> int:
        return sum(part.cols for part in self.parts)

    @property
    def height(self) -> int:
        """Rows with padding."""
        return self.room or power_of_two(self.rows)

    @property
    def cut(self) -> tuple[tuple[int, int], ...]:
        """Columns of each part, without and with padding."""
        return tuple((part.cols, part.width) for part in self.parts)

    @property
    def elements(self) -> int:
        """Numbers of one block, with padding."""
        return self.height * sum(part.width for part in self.parts)


class Writer(Protocol):
    """Writes lines of a kernel. Expressions are Triton's, over float32."""

    def each(self, expression: str, *tiles: Tile) -> Tile:
        """An expression of `{0}`, `{1}`, ... for every element of tiles that broadcast."""
        ...

    def reduced(self, x: Tile, dim: int, how: How) -> Tile:
        """Over dim 1 or 2, which stays with size 1. The maximum of anything and NaN is NaN."""
        ...

    def grouped(self, x: Tile, dim: int, k: int, how: How) -> Tile:
        """The same over every `k` consecutive elements of the dim."""
        ...

    def product(self, x: Tile, y: Tile) -> Tile:
        """y x^T: O[a, b] = sum_k y[a, k] x[b, k]."""
        ...

    def constant(self, expression: str, rows: int, cols: int) -> Tile:
        """An expression of the indices `{row}` and `{col}`."""
        ...

    def transposed(self, x: Tile) -> Tile: ...

    def reshaped(self, x: Tile, rows: int, cols: int) -> Tile:
        """Row-major."""
        ...

    def kron(self, x: Tile, y: Tile, axes: set[int]) -> Tile:
        """Kronecker product over the named axes, broadcast over the other."""
        ...


Lanes = Callable[[Writer, "Args", tuple[Tile, ...]], Tile]


@dataclass(frozen=True)
class Statistic:
    """A reduction over the scored blocks of a row: `how` over `of(writer, args, x, earlier)` of the blocks of
    a tile, and then over `merged(writer, args, part, earlier parts, earlier totals)` of all tiles. `earlier`
    are the statistics of the same op before this one, of the same tile."""

    how: How
    of: Callable[[Writer, Args, Tile, tuple[Tile, ...]], Tile]
    merged: Callable[[Writer, Args, Tile, tuple[Tile, ...], tuple[Tile, ...]], Tile] | None = None


@dataclass(frozen=True)
class Emit:
    """The emission of an op.

    `lanes`: of an op on each block, or on each row, alone, if a kernel `holds` its weights. `statistics`: of
    an op over the blocks of a row, which then has a result for the row, `finished(writer, args, totals,
    count)` with the name of the number of scored blocks, or one for each block, `applied(writer, args, x,
    totals)`. `window`: of an op that reads earlier blocks, whose result is the total after `window(writer,
    args, (total, x, weight))` for each of `taps(args)` blocks back. None of these: the op runs outside of the
    kernels. `exact`: whether the numbers of the result are those of its operands, or small integers.
    """

    lanes: Lanes | None = None
    statistics: tuple[Statistic, ...] = ()
    finished: Callable[[Writer, Args, tuple[Tile, ...], str], Tile] | None = None
    applied: Callable[[Writer, Args, Tile, tuple[Tile, ...]], Tile] | None = None
    window: Lanes | None = None
    taps: Callable[[Args], int] = lambda args: 0
    exact: Callable[[Args], bool] = lambda args: False
    holds: Callable[[Args], bool] = lambda args: True


def always(args: Args) -> bool:
    return True


OUTSIDE = Emit()
"""Runs outside of the kernels, by the op's own semantics."""


def copied() -> Emit:
    """The operand, unchanged."""
    return Emit(lanes=lambda w, args, inputs: inputs[0], exact=always)


def number(value: float) -> str:
    """A float literal."""
    return repr(float(value))


def ramp(args: Args, x: str) -> str:
    """`beta x + alpha`."""
    alpha, beta = args.number("alpha"), args.number("beta")
    text = x if beta == 1 else f"{x} * {number(beta)}"
    return text if alpha == 0 else f"{text} + {number(alpha)}"


def over_each(expression: Callable[[Args], str], exact: Callable[[Args], bool] = lambda args: False) -> Emit:
    """Element by element, as an expression of `{0}`, `{1}`, ..."""
    return Emit(lanes=lambda w, args, inputs: w.each(expression(args), *inputs), exact=exact)
