"""Lines of a kernel that make, load and store tiles: names, indices, padding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from vortex.ops.emit import How, Part, Tile, power_of_two

NEUTRAL: dict[How, str] = {"max": "-float('inf')", "min": "float('inf')", "sum": "0.0"}
PAIR: dict[How, str] = {"max": "maximum({}, {})", "min": "minimum({}, {})", "sum": "{} + {}"}
Shape = Literal["wide", "vector", "rows", "dot"]
"""What blocks are multiplied with: nothing, or tiles; one row; some rows, in registers; a matrix."""
_ASSIGNED = re.compile(r"\s*(\w+) = ")


def parts_of(cols: int) -> tuple[tuple[int, int], ...]:
    """How columns are cut: (columns, with padding) for each part."""
    whole = power_of_two(cols)
    first, second = whole // 2, power_of_two(cols - whole // 2) if cols < whole else 0
    if cols < 64 or cols == whole or first + second >= whole:
        return ((cols, whole),)
    return ((first, first), (cols - first, second))


@dataclass(frozen=True)
class Area:
    """Where lines stand: `lines` at an indentation. Later areas of a kernel see the names of earlier ones."""

    lines: list[str]
    indent: int

    def add(self, line: str, deeper: int = 0) -> None:
        self.lines.append("    " * (self.indent + deeper) + line)


class TileLines:
    """See `vortex.ops.emit.Writer`. `blocks`: how many blocks a tile has, as an expression. Index names go
    to `head`, everything else to `area`, which may be changed. `as_read`: rows of a wide matrix in memory are
    combined when they are read, and that stands in `early`, if there is one."""

    def __init__(self, head: Area, area: Area, blocks: str = "BN", tensor_cores: bool = False) -> None:
        self.head, self.area, self.blocks, self.tensor_cores = head, area, blocks, tensor_cores
        self.as_read = False
        self.early: Area | None = None
        self.stem = "x"
        self.widest = self.fewest = 1
        self.shape: Shape = "wide"
        self.scratch = 0
        self.ahead: list[tuple[str, str]] = []
        self.late: set[str] = set()
        self._names: set[str] = set()
        self._indices: set[str] = set()

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Lines of a block below the last one."""
        before = self.area
        self.area = Area(before.lines, before.indent + 1)
        yield
        self.area = before

    # names

    def name(self, stem: str | None = None) -> str:
        """A new name."""
        stem = stem or self.stem
        number, found = 1, stem
        while found in self._names:
            number += 1
            found = f"{stem}_{number}"
        self._names.add(found)
        return found

    def index(self, axis: int, size: int) -> str:
        """The indices of an axis of tiles: 0 blocks, 1 rows, 2 columns."""
        if size == 1 and axis:
            return "0"
        name = ("lane", f"row_{size}", f"col_{size}")[axis]
        if name not in self._indices:
            self._indices.add(name)
            at = ("[:, None, None]", "[None, :, None]", "[None, None, :]")[axis]
            self.head.add(f"{name} = tl.arange(0, {size if axis else self.blocks}){at}")
        return name

    def let(self, expression: str, stem: str | None = None) -> str:
        name = self.name(stem)
        self.area.add(f"{name} = {expression}")
        return name

    def tile(self, rows: int, cols: int, blocks: bool, expression: Callable[[int, int, int], str]) -> Tile:
        """A tile whose part is `expression(first column, columns, width)`."""
        parts, first = [], 0
        for count, width in parts_of(cols):
            parts.append(Part(self.let(expression(first, count, width)), count, width))
            first += count
        return self.counted(Tile(rows, tuple(parts), blocks))

    def counted(self, tile: Tile, elements: int = 0) -> Tile:
        if tile.blocks:
            self.widest = max(self.widest, tile.elements, elements)
        return tile

    # masks and memory

    def inside(self, rows: int, count: int, width: int, height: int = 0) -> str:
        """Where a part is no padding; empty if everywhere."""
        height = height or power_of_two(rows)
        masks = [f"({self.index(1, height)} < {rows})"] if height != rows else []
        masks += [f"({self.index(2, width)} < {count})"] if width != count else []
        return " & ".join(masks)

    def without_padding(self, tile: Tile, part: Part, dim: int, neutral: str) -> str:
        padded = tile.height != tile.rows if dim == 1 else part.padded
        if not padded:
            return part.name
        index, size = (
            (self.index(1, tile.height), tile.rows) if dim == 1 else (self.index(2, part.width), part.cols)
        )
        return f"tl.where({index} < {size}, {part.name}, {neutral})"

    def offsets(
        self,
        rows: int,
        cols: int,
        first: int,
        width: int,
        stride: str | int | None = None,
        height: int = 0,
    ) -> str:
        """Row-major places of a part, from its column `first` on."""
        terms, height = [], height or power_of_two(rows)
        if height > 1:
            terms.append(f"{self.index(1, height)} * {cols if stride is None else stride}")
        if first:
            terms.append(str(first))
        if width > 1:
            terms.append(self.index(2, width))
        elif height == 1:
            terms.append(self._origin())
        return " + ".join(terms)

    def _origin(self) -> str:
        """The place of a single number, as a tile."""
        if "origin" not in self._indices:
            self._indices.add("origin")
            self.head.add("origin = tl.zeros((1, 1, 1), tl.int32)")
        return "origin"

    def load(
        self,
        pointer: str,
        rows: int,
        cols: int,
        blocks: bool,
        stride: str | int | None = None,
        mask: str = "",
        exact: bool = False,
        ahead: bool = False,
    ) -> Tile:
        """Numbers at `pointer` (`[BN, 1, 1]` if they differ between blocks), row-major, zeros as padding;
        `ahead` of the turn that needs them."""

        def part(first: int, count: int, width: int) -> str:
            if not blocks and width > 1:
                return self.plain(pointer, rows, count, first, width, cols if stride is None else stride)
            inside = self.inside(rows, count, width)
            place = f"{pointer} + ({self.offsets(rows, cols, first, width, stride)})"
            if blocks and not mask:
                return f"{self.read(place, inside, not ahead)}.to(tl.float32)"
            masks = " & ".join(text for text in (mask, inside) if text)
            guard = f", mask={masks}, other=0.0" if masks else ""
            return f"tl.load({place}{guard}).to(tl.float32)"

        step = cols if stride is None else stride
        memory = "" if mask else (f"{pointer} + {{row}} * {step}" if rows > 1 else pointer)
        if not ahead:
            self.late.add(memory)
        return replace(self.tile(rows, cols, blocks, part), exact=exact, memory=memory)

    def read(self, place: str, inside: str, late: bool) -> str:
        """What stands at a place of each block, as it is stored; anything, of a block that is not valid."""
        if late:
            return f"tl.load({place}{f', mask={inside}, other=0.0' if inside else ''})"
        name = self.name("read")
        guard = f"valid & {inside}, other=0.0" if inside else "valid"
        self.ahead.append((name, f"tl.load({place}, mask={guard})"))
        return name

    def plain(
        self, pointer: str, rows: int, count: int, first: int, width: int, stride: str | int, height: int = 0
    ) -> str:
        """A load of one row or of a matrix, which is no tile before it is read: so it takes the layout of the
        blocks that it meets, and they keep theirs."""
        height = height or power_of_two(rows)
        col, row = self.span(width), self.span(height) if height > 1 else ""
        place = f"{first} + {col}" if first else col
        masks = [f"({col} < {count})"] if count != width else []
        if row:
            masks = [mask.replace(col, f"{col}[None, :]") for mask in masks]
            masks += [f"({row}[:, None] < {rows})"] if height != rows else []
            place = f"{row}[:, None] * {stride} + {place}[None, :]"
            if first:
                place = f"{row}[:, None] * {stride} + ({first} + {col})[None, :]"
        guard = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
        expanded = "[None, :, :]" if row else "[None, None, :]"
        return f"tl.load({pointer} + ({place}){guard}).to(tl.float32){expanded}"

    def span(self, size: int) -> str:
        """The indices of an axis, as a vector."""
        name = f"span_{size}"
        if name not in self._indices:
            self._indices.add(name)
            self.head.add(f"{name} = tl.arange(0, {size})")
        return name

    def store(self, pointer: str, tile: Tile, mask: str = "", value: str = "{}") -> None:
        """The inverse of `load`."""
        first = 0
        for part in tile.parts:
            inside = self.inside(tile.rows, part.cols, part.width, tile.height)
            masks = " & ".join(text for text in (mask, inside) if text)
            guard = f", mask={masks}" if masks else ""
            place = self.offsets(tile.rows, tile.cols, first, part.width, height=tile.height)
            self.area.add(f"tl.store({pointer} + ({place}), {value.format(part.name)}{guard})")
            first += part.cols

    def barrier(self) -> None:
        self.area.add("tl.debug_barrier()")

    # ops

    def each(self, expression: str, *tiles: Tile) -> Tile:
        rows, cols = max(tile.rows for tile in tiles), max(tile.cols for tile in tiles)
        cuts = {tile.cut for tile in tiles if tile.cols == cols}
        heights = {tile.height for tile in tiles if tile.rows == rows}
        if len(cuts) > 1 or len(heights) > 1:
            tiles = tuple(map(self.as_cut, tiles))
        shape = next(tile for tile in tiles if tile.cols == cols)
        parts = []
        for at, part in enumerate(shape.parts):
            names = [tile.parts[at if tile.cols == cols else 0].name for tile in tiles]
            parts.append(Part(self.let(expression.format(*names)), part.cols, part.width))
        blocks = any(tile.blocks for tile in tiles)
        return self.counted(Tile(rows, tuple(parts), blocks, room=max(tile.room for tile in tiles)))

    def folded(self, expression: str, axis: int, how: How) -> str:
        if how == "sum":
            return f"tl.sum({expression}, {axis}, keep_dims=True)"
        return f"tl.reduce({expression}, {axis}, {'maximum' if how == 'max' else 'minimum'}, keep_dims=True)"

    def filled(self, rows: int, width: int, value: str) -> str:
        return f"tl.full((1, {power_of_two(rows)}, {width}), {value}, tl.float32)"

    def across(self, x: Tile, how: How) -> Tile:
        """Over the blocks of the tile."""
        parts = tuple(
            Part(self.let(self.folded(part.name, 0, how)), part.cols, part.width) for part in x.parts
        )
        return Tile(x.rows, parts, False, room=x.room)

    def combined(self, x: Tile, y: Tile, how: How) -> Tile:
        return self.each(PAIR[how].format("{0}", "{1}"), x, y)

    def constant(self, expression: str, rows: int, cols: int) -> Tile:
        height = power_of_two(rows)

        def part(first: int, count: int, width: int) -> str:
            col = f"({self.index(2, width)} + {first})" if first else self.index(2, width)
            text = expression.format(row=self.index(1, height), col=col)
            return f"tl.zeros((1, {height}, {width}), tl.float32) + {text}"

        return self.tile(rows, cols, False, part)

    def as_cut(self, x: Tile) -> Tile:
        """A tile with the padding that others of its size have."""
        wanted, height = parts_of(x.cols), power_of_two(x.rows)
        cut = x.cut
        if cut == wanted and x.height == height:
            return x
        if len(cut) == x.cols > 1 and len(wanted) == 1 and x.height == height:
            name = "0.0"
            for at, part in enumerate(x.parts):
                name = f"tl.where({self.index(2, wanted[0][1])} == {at}, {part.name}, {name})"
            return Tile(x.rows, (Part(self.let(name), *wanted[0]),), x.blocks)
        if len(cut) != 1 or len(wanted) != 1:
            return self.arranged(x, x.rows, x.cols, "{row}", "{col}")
        name, count = x.parts[0].name, self.blocks if x.blocks else "1"
        width, room = x.parts[0].width, wanted[0][1]
        for before, inside, times, after in (
            (f"{count}", height, x.height // height, width),
            (f"{count} * {height}", room, width // room, 1),
        ):
            if times > 1:
                first = f"(tl.arange(0, {times}) == 0)[None, :, None]"
                spread = f"tl.reshape({name}, ({before}, {times}, {inside * after}))"
                name = f"tl.sum(tl.where({first}, {spread}, 0.0), 1)"
        shaped = f"tl.reshape({name}, ({count}, {height}, {room}))"
        return Tile(x.rows, (Part(self.let(shaped), x.cols, room),), x.blocks)

    def arranged(self, x: Tile, rows: int, cols: int, row: str, col: str, whole: bool = False) -> Tile:
        """Element `[row, col]` of x, expressions of the `{row}` and `{col}` of the result, for every element.
        Through memory of the program's own. `whole`: in one part."""
        numel = x.rows * x.cols
        self.scratch = max(self.scratch, numel)
        base = "mine" if not x.blocks else f"mine + {self.index(0, 0)} * {numel}"
        self.barrier()
        self.store(base, x)
        self.barrier()
        height = power_of_two(rows)
        cut = ((cols, power_of_two(cols)),) if whole else parts_of(cols)
        parts, first = [], 0
        for count, width in cut:
            at_col = f"({self.index(2, width)} + {first})" if first else self.index(2, width)
            places = {"row": self.index(1, height), "col": at_col}
            place = f"({row.format(**places)}) * {x.cols} + {col.format(**places)}"
            mask = self.inside(rows, count, width) or "True"
            shape = f"tl.zeros((1, {height}, {width}), tl.int32)"
            guard = f"mask=({shape} == 0) & {mask}, other=0.0"
            parts.append(Part(self.let(f"tl.load({base} + {shape} + {place}, {guard})"), count, width))
            first += count
        return self.counted(Tile(rows, tuple(parts), x.blocks))


def without_unused(lines: list[str]) -> list[str]:
    """Lines whose name is never read are left out."""
    words = [re.findall(r"\w+", line) for line in lines]
    left = Counter(chain.from_iterable(words))
    kept = list(range(len(lines)))
    while True:
        unused = {at for at in kept if (found := _ASSIGNED.match(lines[at])) and left[found[1]] == 1}
        if not unused:
            return [lines[at] for at in kept]
        left.subtract(chain.from_iterable(words[at] for at in unused))
        kept = [at for at in kept if at not in unused]
