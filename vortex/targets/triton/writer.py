"""Writes the lines of one kernel: tiles, their padding, and what ops ask for (`vortex.ops.emit.Writer`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vortex.ops.emit import How, Part, Tile, power_of_two

NEUTRAL: dict[How, str] = {"max": "-float('inf')", "min": "float('inf')", "sum": "0.0"}
_PAIR: dict[How, str] = {"max": "maximum({}, {})", "min": "minimum({}, {})", "sum": "{} + {}"}
_LARGEST_PRODUCT = 2**11
"""Numbers a block that a product holds before it is summed; larger ones go row by row."""
_FEWEST_DOT = 16
"""The smallest size of any axis of `tl.dot`."""
_LONGEST_DOT, _DOT_STREAM = 2**8, 2**6
"""Columns of the operands of a `tl.dot` that are held at once; of longer ones, how many at a time."""
_UNROLLED_ROWS = 8
_STREAM, _SHORTEST_STREAM = 2**10, 2**3
"""Numbers a block of a product that is summed as its operands are read; the fewest columns at a time."""
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


class TileWriter:
    """See `vortex.ops.emit.Writer`. `blocks`: how many blocks a tile has, as an expression. Index names go
    to `head`, everything else to `area`, which may be changed."""

    def __init__(self, head: Area, area: Area, blocks: str = "BN", tensor_cores: bool = False) -> None:
        self.head, self.area, self.blocks, self.tensor_cores = head, area, blocks, tensor_cores
        self.stem = "x"
        self.widest = self.fewest = 1
        self.scratch = 0
        self._names: set[str] = set()
        self._indices: set[str] = set()

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
        return self._counted(Tile(rows, tuple(parts), blocks))

    def _counted(self, tile: Tile, elements: int = 0) -> Tile:
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

    def _without_padding(self, tile: Tile, part: Part, dim: int, neutral: str) -> str:
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
    ) -> Tile:
        """Numbers at `pointer` (`[BN, 1, 1]` if they differ between blocks), row-major, zeros as padding."""

        def part(first: int, count: int, width: int) -> str:
            masks = " & ".join(text for text in (mask, self.inside(rows, count, width)) if text)
            guard = f", mask={masks}, other=0.0" if masks else ""
            place = self.offsets(rows, cols, first, width, stride)
            return f"tl.load({pointer} + ({place}){guard}).to(tl.float32)"

        step = cols if stride is None else stride
        memory = "" if mask else (f"{pointer} + {{row}} * {step}" if rows > 1 else pointer)
        return replace(self.tile(rows, cols, blocks, part), exact=exact, memory=memory)

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
        if len(tiles) > 1:
            tiles = tuple(map(self._as_cut, tiles))
        rows, cols = max(tile.rows for tile in tiles), max(tile.cols for tile in tiles)
        shape = next(tile for tile in tiles if tile.cols == cols)
        parts = []
        for at, part in enumerate(shape.parts):
            names = [tile.parts[at if tile.cols == cols else 0].name for tile in tiles]
            parts.append(Part(self.let(expression.format(*names)), part.cols, part.width))
        blocks = any(tile.blocks for tile in tiles)
        return self._counted(Tile(rows, tuple(parts), blocks, room=max(tile.room for tile in tiles)))

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
        return self.each(_PAIR[how].format("{0}", "{1}"), x, y)

    def reduced(self, x: Tile, dim: int, how: How) -> Tile:
        if (x.rows if dim == 1 else x.cols) == 1:
            return x
        expressions = [
            self.folded(self._without_padding(x, part, dim, NEUTRAL[how]), dim, how) for part in x.parts
        ]
        if dim == 1:
            made = zip(x.parts, expressions, strict=True)
            parts = tuple(Part(self.let(text), part.cols, part.width) for part, text in made)
            return self._counted(Tile(1, parts, x.blocks))
        total = expressions[0]
        for other in expressions[1:]:
            total = _PAIR[how].format(total, other)
        return self._counted(Tile(x.rows, (Part(self.let(total), 1, 1),), x.blocks, room=x.room))

    def grouped(self, x: Tile, dim: int, k: int, how: How) -> Tile:
        """Through a tile whose axis has room for a power of two of numbers a group."""
        x = self._as_cut(x)
        rows, cols, room = x.rows, x.cols, power_of_two(k)
        groups = (rows if dim == 1 else cols) // k
        axis_whole = x.height == rows if dim == 1 else len(x.parts) == 1 and not x.parts[0].padded
        if not (room == k and axis_whole):
            source = f"({{i}} // {room}) * {k} + tl.minimum({{i}} % {room}, {k - 1})"
            if dim == 1:
                x = self._arranged(x, groups * room, cols, source.replace("{i}", "{row}"), "{col}")
            else:
                x = self._arranged(
                    x, rows, groups * room, "{row}", source.replace("{i}", "{col}"), whole=True
                )
        count = self.blocks if x.blocks else "1"
        parts = []
        for part in x.parts:
            axis, shape = (
                (2, f"({count}, {x.height // room}, {room}, {part.width})")
                if dim == 1
                else (3, f"({count}, {x.height}, {part.width // room}, {room})")
            )
            spread = f"tl.reshape({part.name}, {shape})"
            if room != k:
                at = "[None, None, :, None]" if dim == 1 else "[None, None, None, :]"
                spread = f"tl.where(tl.arange(0, {room}){at} < {k}, {spread}, {NEUTRAL[how]})"
            text = self.folded(spread, axis, how).replace(", keep_dims=True", "")
            size = part.cols if dim == 1 else groups
            parts.append(Part(self.let(text), size, part.width if dim == 1 else part.width // room))
        found = Tile(groups if dim == 1 else rows, tuple(parts), x.blocks)
        return self._counted(self._as_cut(found))

    def _as_cut(self, x: Tile) -> Tile:
        """A tile with the padding that others of its size have."""
        wanted, height = parts_of(x.cols), power_of_two(x.rows)
        cut = tuple((part.cols, part.width) for part in x.parts)
        if cut == wanted and x.height == height:
            return x
        if len(cut) != 1 or len(wanted) != 1:
            return self._arranged(x, x.rows, x.cols, "{row}", "{col}")
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

    def product(self, x: Tile, y: Tile) -> Tile:
        return self.products([(x, y)])

    def products(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        """The sum of the products of pairs of equal shapes."""
        pairs = [(self._as_cut(x), self._as_cut(y)) for x, y in pairs]
        x, y = beside_each(pairs)
        in_memory = all(tile.memory for pair in pairs for tile in pair)
        widest = max(part.width for part in x.parts)
        if self._on_tensor_cores(x, y):
            long = sum(part.width for part in x.parts) > _LONGEST_DOT
            return self._dot_streamed(pairs) if in_memory and long else self._dot(pairs)
        over = y if x.blocks else x
        if (
            x.blocks != y.blocks
            and 1 < over.rows <= _UNROLLED_ROWS
            and in_memory
            and 1 in (x.height, y.height)
        ):
            return self._product_unrolled(pairs)
        if x.height * y.height * widest <= _LARGEST_PRODUCT or x.height == y.height == 1:
            return self._product_at_once(x, y)
        if in_memory and x.blocks != y.blocks and _STREAM // (x.height * y.height) >= _SHORTEST_STREAM:
            return self._product_streamed(pairs)
        return self._product_by_rows(x, y)

    def _product_at_once(self, x: Tile, y: Tile) -> Tile:
        blocks = x.blocks or y.blocks
        at, other = ("", "") if 1 in (x.height, y.height) else ("[:, None, :, :]", "[:, :, None, :]")
        by_width: dict[int, list[str]] = {}
        for a, b in zip(x.parts, y.parts, strict=True):
            text = f"{a.name}{at} * {b.name}{other}"
            if a.padded:
                text = f"tl.where({self.index(2, a.width)}{'[None]' if at else ''} < {a.cols}, {text}, 0.0)"
            by_width.setdefault(a.width, []).append(text)
        axis = 3 if at else 2
        total = " + ".join(f"tl.sum({' + '.join(texts)}, {axis})" for texts in by_width.values())
        count = self.blocks if blocks else "1"
        name = self.let(f"tl.reshape({total}, ({count}, {y.height}, {x.height}))")
        found = self._as_cut(Tile(y.rows, (Part(name, x.rows, x.height),), blocks))
        return self._counted(found, x.height * y.height * sum(part.width for part in x.parts))

    def _streamed(
        self,
        pairs: Sequence[tuple[Tile, Tile]],
        width: int,
        line: Callable[[str, str], str],
        out: str,
        fewest: int = 1,
    ) -> None:
        """`out = line(x, y)` for `width` columns of each pair at a time, which are read when needed."""
        for pair in pairs:
            first = self.name("first_col")
            self.area.add(f"for {first} in range(0, {pair[0].cols}, {width}):")
            loaded = []
            for tile in pair:
                height = tile.height if tile.blocks else max(tile.height, fewest)
                row, col = self.index(1, height), f"({first} + {self.index(2, width)})"
                masks = [f"({row} < {tile.rows})"] if height != tile.rows else []
                masks += [f"({col} < {tile.cols})"] if tile.cols % width else []
                guard = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
                place = f"{tile.memory.format(row=row)} + {col}"
                name = self.name()
                self.area.add(f"{name} = tl.load({place}{guard}).to(tl.float32)", 1)
                loaded.append(name)
            self.area.add(f"{out} = {line(*loaded)}", 1)

    def _product_streamed(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        x, y = pairs[0]
        width = min(power_of_two(x.cols), _STREAM // (x.height * y.height))
        out = self.let(f"tl.zeros(({self.blocks}, {y.height}, {x.height}, {width}), tl.float32)")
        self._streamed(pairs, width, lambda a, b: f"{out} + {a}[:, None, :, :] * {b}[:, :, None, :]", out)
        name = self.let(f"tl.sum({out}, 3)")
        found = self._as_cut(Tile(y.rows, (Part(name, x.rows, x.height),), True))
        return self._counted(found, x.height * y.height * width)

    def _product_unrolled(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        """Vectors of blocks with each of a few rows, which stay in registers."""
        x, y = pairs[0]
        over_x = not x.blocks
        over = x if over_x else y
        out = ""
        axis = 2 if over_x else 1
        for at in range(over.rows):
            by_width: dict[int, list[str]] = {}
            for pair in pairs:
                rows, vectors = pair if over_x else pair[::-1]
                first = 0
                for a, b in zip(rows.parts, vectors.parts, strict=True):
                    name = self.let(self._row_of(rows, a, first, str(at)))
                    text = f"{b.name} * {name}"
                    if a.padded:
                        text = f"tl.where({self.index(2, a.width)} < {a.cols}, {text}, 0.0)"
                    by_width.setdefault(a.width, []).append(text)
                    first += a.cols
            total = " + ".join(
                f"tl.sum({' + '.join(texts)}, 2, keep_dims=True)" for texts in by_width.values()
            )
            out = self.let(f"tl.where({self.index(axis, over.height)} == {at}, {total}, {out or '0.0'})")
        found = Tile(y.rows, (Part(out, x.rows, x.height),), True)
        return self._counted(self._as_cut(found), sum(part.width for pair in pairs for part in pair[0].parts))

    def _product_by_rows(self, x: Tile, y: Tile) -> Tile:
        """A row of one operand at a time: of the one without blocks, or with fewer rows."""
        over_x = not x.blocks if x.blocks != y.blocks else x.rows <= y.rows
        over, with_ = (x, y) if over_x else (y, x)
        blocks = x.blocks or y.blocks
        count = self.blocks if blocks else "1"
        out = self.let(f"tl.zeros(({count}, {y.height}, {x.height}), tl.float32)")
        at = self.name("at")
        self.area.add(f"for {at} in range({over.rows}):")
        by_width: dict[int, list[str]] = {}
        first = 0
        for a, b in zip(over.parts, with_.parts, strict=True):
            text = f"{self._row_of(over, a, first, at)} * {b.name}"
            if a.padded:
                text = f"tl.where({self.index(2, a.width)} < {a.cols}, {text}, 0.0)"
            by_width.setdefault(a.width, []).append(text)
            first += a.cols
        total = " + ".join(f"tl.sum({' + '.join(texts)}, 2, keep_dims=True)" for texts in by_width.values())
        column = self.name()
        self.area.add(f"{column} = {total}", 1)
        if over_x:
            self.area.add(f"{out} = tl.where({self.index(2, x.height)} == {at}, {column}, {out})", 1)
        else:
            turned = f"tl.permute({column}, (0, 2, 1))"
            self.area.add(f"{out} = tl.where({self.index(1, y.height)} == {at}, {turned}, {out})", 1)
        return self._counted(self._as_cut(Tile(y.rows, (Part(out, x.rows, x.height),), blocks)))

    def _row_of(self, x: Tile, part: Part, first: int, row: str) -> str:
        if not x.memory:
            chosen = f"tl.where({self.index(1, x.height)} == {row}, {part.name}, 0.0)"
            return f"tl.sum({chosen}, 1, keep_dims=True)"
        mask = self.inside(1, part.cols, part.width)
        guard = f", mask={mask}, other=0.0" if mask else ""
        place = self.offsets(1, x.cols, first, part.width)
        return f"tl.load({x.memory.format(row=row)} + ({place}){guard}).to(tl.float32)"

    def _on_tensor_cores(self, x: Tile, y: Tile) -> bool:
        if not self.tensor_cores or x.blocks == y.blocks:
            return False
        row = y if x.blocks else x
        return row.rows >= 4 and all(part.width >= _FEWEST_DOT for part in x.parts)

    def _dot(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        x, y = beside_each(pairs)
        n = max((y if x.blocks else x).height, _FEWEST_DOT)
        total = f"tl.zeros(({self.blocks} * {(x if x.blocks else y).height}, {n}), tl.float32)"
        for pair in pairs:
            block, row = pair if x.blocks else pair[::-1]
            first = 0
            for a, b in zip(block.parts, row.parts, strict=True):
                left, right = (self._without_padding(t, p, 2, "0.0") for t, p in ((block, a), (row, b)))
                if row.memory:  # read with room for as many rows as `tl.dot` wants
                    masks = f"({self.index(1, n)} < {row.rows})" if row.rows < n else ""
                    masks += (
                        f"{' & ' if masks else ''}({self.index(2, b.width)} < {b.cols})" if b.padded else ""
                    )
                    guard = f", mask={masks}, other=0.0" if masks else ""
                    place = self.offsets(1, row.cols, first, b.width)
                    pointer = row.memory.format(row=self.index(1, n))
                    right = self.let(f"tl.load({pointer} + ({place}){guard}).to(tl.float32)")
                total = self.let(self._matmul(*pair, left, right, a.width, total))
                first += a.cols
        return self._from_matmul(x, y, total)

    def _dot_streamed(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        x, y = pairs[0]
        block, row = (x, y) if x.blocks else (y, x)
        n = max(row.height, _FEWEST_DOT)
        total = self.let(f"tl.zeros(({self.blocks} * {block.height}, {n}), tl.float32)")

        def line(a: str, b: str) -> str:
            left, right = (a, b) if x.blocks else (b, a)
            return self._matmul(*beside_each(pairs), left, right, _DOT_STREAM, total)

        self._streamed(pairs, _DOT_STREAM, line, total, _FEWEST_DOT)
        return self._from_matmul(x, y, total)

    def _matmul(self, x: Tile, y: Tile, left: str, right: str, width: int, total: str) -> str:
        """`total`, and the product of columns of the operand with blocks and of the one without."""
        block, row = (x, y) if x.blocks else (y, x)
        n = max(row.height, _FEWEST_DOT)
        if row.height < n and not row.memory:  # its rows are repeated
            right = f"tl.broadcast_to({right}, ({n // row.height}, {row.height}, {width}))"
        left = f"tl.reshape({left}, ({self.blocks} * {block.height}, {width}))"
        return f"matmul({left}, tl.reshape({right}, ({n}, {width})), {total}, {x.exact and y.exact}, NARROW)"

    def _from_matmul(self, x: Tile, y: Tile, total: str) -> Tile:
        block, row = (x, y) if x.blocks else (y, x)
        n = max(row.height, _FEWEST_DOT)
        self.fewest = max(self.fewest, -(-_FEWEST_DOT // block.height))
        if y.blocks:
            name = self.let(f"tl.reshape({total}, ({self.blocks}, {block.height}, {n}))")
            return self._counted(Tile(y.rows, (Part(name, x.rows, n),), True))
        if block.height == 1:
            name = self.let(f"tl.reshape({total}, ({self.blocks}, {n}, 1))")
        else:
            shaped = f"tl.reshape({total}, ({self.blocks}, {block.height}, {n}))"
            name = self.let(f"tl.permute({shaped}, (0, 2, 1))")
        return self._counted(Tile(y.rows, (Part(name, x.rows, block.height),), True, room=n))

    def constant(self, expression: str, rows: int, cols: int) -> Tile:
        height = power_of_two(rows)

        def part(first: int, count: int, width: int) -> str:
            col = f"({self.index(2, width)} + {first})" if first else self.index(2, width)
            text = expression.format(row=self.index(1, height), col=col)
            return f"tl.zeros((1, {height}, {width}), tl.float32) + {text}"

        return self.tile(rows, cols, False, part)

    def transposed(self, x: Tile) -> Tile:
        x = self._as_cut(x)
        if len(x.parts) > 1:
            return self._arranged(x, x.cols, x.rows, "{col}", "{row}")
        name = self.let(f"tl.permute({x.parts[0].name}, (0, 2, 1))")
        return self._as_cut(Tile(x.cols, (Part(name, x.rows, x.height),), x.blocks))

    def reshaped(self, x: Tile, rows: int, cols: int) -> Tile:
        if (x.rows, x.cols) == (rows, cols):
            return x
        x = self._as_cut(x)
        whole = len(x.parts) == 1 and not x.parts[0].padded and x.height == x.rows
        if not (whole and power_of_two(rows) == rows and power_of_two(cols) == cols):
            flat = f"({{row}} * {cols} + {{col}})"
            return self._arranged(x, rows, cols, f"{flat} // {x.cols}", f"{flat} % {x.cols}")
        count = self.blocks if x.blocks else "1"
        name = self.let(f"tl.reshape({x.parts[0].name}, ({count}, {rows}, {cols}))")
        return self._counted(Tile(rows, (Part(name, cols, cols),), x.blocks))

    def kron(self, x: Tile, y: Tile, axes: set[int]) -> Tile:
        rows, cols = (x.rows * y.rows, x.cols * y.cols)
        rows = rows if 1 in axes else max(x.rows, y.rows)
        cols = cols if 2 in axes else max(x.cols, y.cols)
        row = ("{row}" if x.rows > 1 else "0", "{row}" if y.rows > 1 else "0")
        col = ("{col}" if x.cols > 1 else "0", "{col}" if y.cols > 1 else "0")
        if 1 in axes:
            row = (f"{{row}} // {y.rows}", f"{{row}} % {y.rows}")
        if 2 in axes:
            col = (f"{{col}} // {y.cols}", f"{{col}} % {y.cols}")
        return self.each(
            "{0} * {1}",
            self._arranged(x, rows, cols, row[0], col[0]),
            self._arranged(y, rows, cols, row[1], col[1]),
        )

    def _arranged(self, x: Tile, rows: int, cols: int, row: str, col: str, whole: bool = False) -> Tile:
        """Element `[row, col]` of x, expressions of the `{row}` and `{col}` of the result, for every element.
        Through memory of the program's own. `whole`: in one part."""
        numel = x.rows * x.cols
        self.scratch = max(self.scratch, numel)
        base = "mine" if not x.blocks else f"mine + {self.index(0, 0)} * {numel}"
        inside = "valid" if x.blocks else ""
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
        del inside
        return self._counted(Tile(rows, tuple(parts), x.blocks))


def beside(tiles: Sequence[Tile]) -> Tile:
    """Tiles of equal rows as one with the columns of all."""
    if len(tiles) == 1:
        return tiles[0]
    parts = tuple(part for tile in tiles for part in tile.parts)
    return Tile(tiles[0].rows, parts, tiles[0].blocks, all(tile.exact for tile in tiles))


def beside_each(pairs: Sequence[tuple[Tile, Tile]]) -> tuple[Tile, Tile]:
    return beside([x for x, _ in pairs]), beside([y for _, y in pairs])


def without_unused(lines: list[str]) -> list[str]:
    """Lines whose name is never read are left out."""
    while True:
        text = "\n".join(lines)
        kept = []
        for line in lines:
            found = _ASSIGNED.match(line)
            if found and len(re.findall(rf"\b{found[1]}\b", text)) == 1:
                continue
            kept.append(line)
        if len(kept) == len(lines):
            return kept
        lines = kept
