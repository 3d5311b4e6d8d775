"""All that ops ask for when they write their lines: `vortex.ops.emit.Writer`."""

from __future__ import annotations

from vortex.ops.emit import How, Part, Tile, power_of_two
from vortex.targets.triton.products import ProductLines
from vortex.targets.triton.tiles import NEUTRAL, PAIR

WIDE_ROW, MOST_ROWS = 2**8, 2**5
"""Columns, at least, of a matrix in memory whose rows are combined as they are read, so that warps read many
bytes at a time; its rows, at most: they are read at a time, by an unrolled loop."""


class TileWriter(ProductLines):
    """See `vortex.ops.emit.Writer`, and `TileLines` for how it is made."""

    def reduced(self, x: Tile, dim: int, how: How) -> Tile:
        if (x.rows if dim == 1 else x.cols) == 1:
            return x
        wide = x.memory and not x.blocks and x.cols >= WIDE_ROW and x.rows <= MOST_ROWS
        if dim == 1 and self.as_read and wide:
            return self._folded_as_read(x, how)
        expressions = [
            self.folded(self.without_padding(x, part, dim, NEUTRAL[how]), dim, how)
            if dim == 1 or part.width > 1
            else part.name
            for part in x.parts
        ]
        if dim == 1:
            made = zip(x.parts, expressions, strict=True)
            parts = tuple(Part(self.let(text), part.cols, part.width) for part, text in made)
            return self.counted(Tile(1, parts, x.blocks))
        total = expressions[0]
        for other in expressions[1:]:
            total = PAIR[how].format(total, other)
        return self.counted(Tile(x.rows, (Part(self.let(total), 1, 1),), x.blocks, room=x.room))

    def _folded_as_read(self, x: Tile, how: How) -> Tile:
        """Over the rows of a matrix in memory, one after the other: a thread has its columns of all rows, and
        needs nothing of other threads."""
        area, row, first = self.early or self.area, self.name("at_row"), 0
        parts = tuple(Part(self.name(), part.cols, part.width) for part in x.parts)
        for part in parts:
            area.add(f"{part.name} = {self.filled(1, part.width, NEUTRAL[how])}")
        area.add(f"for {row} in tl.static_range({x.rows}):")
        for part in parts:
            read = self.plain(x.memory.format(row=row), 1, part.cols, first, part.width, 0)
            area.add(f"{part.name} = {PAIR[how].format(part.name, read)}", 1)
            first += part.cols
        return Tile(1, parts, False)

    def grouped(self, x: Tile, dim: int, k: int, how: How) -> Tile:
        """Through a tile whose axis has room for a power of two of numbers a group."""
        x = self.as_cut(x)
        rows, cols, room = x.rows, x.cols, power_of_two(k)
        groups = (rows if dim == 1 else cols) // k
        axis_whole = x.height == rows if dim == 1 else len(x.parts) == 1 and not x.parts[0].padded
        if not (room == k and axis_whole):
            source = f"({{i}} // {room}) * {k} + tl.minimum({{i}} % {room}, {k - 1})"
            if dim == 1:
                x = self.arranged(x, groups * room, cols, source.replace("{i}", "{row}"), "{col}")
            else:
                x = self.arranged(x, rows, groups * room, "{row}", source.replace("{i}", "{col}"), whole=True)
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
        return self.counted(self.as_cut(found))

    def transposed(self, x: Tile) -> Tile:
        x = self.as_cut(x)
        if len(x.parts) > 1:
            return self.arranged(x, x.cols, x.rows, "{col}", "{row}")
        name = self.let(f"tl.permute({x.parts[0].name}, (0, 2, 1))")
        return self.as_cut(Tile(x.cols, (Part(name, x.rows, x.height),), x.blocks))

    def reshaped(self, x: Tile, rows: int, cols: int) -> Tile:
        if (x.rows, x.cols) == (rows, cols):
            return x
        x = self.as_cut(x)
        whole = len(x.parts) == 1 and not x.parts[0].padded and x.height == x.rows
        if not (whole and power_of_two(rows) == rows and power_of_two(cols) == cols):
            flat = f"({{row}} * {cols} + {{col}})"
            return self.arranged(x, rows, cols, f"{flat} // {x.cols}", f"{flat} % {x.cols}")
        count = self.blocks if x.blocks else "1"
        name = self.let(f"tl.reshape({x.parts[0].name}, ({count}, {rows}, {cols}))")
        return self.counted(Tile(rows, (Part(name, cols, cols),), x.blocks))

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
            self.arranged(x, rows, cols, row[0], col[0]),
            self.arranged(y, rows, cols, row[1], col[1]),
        )
