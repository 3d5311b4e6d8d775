"""Products of tiles, by what their shapes allow: all at once, row by row, from memory, on tensor cores."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from vortex.ops.emit import Part, Tile, power_of_two
from vortex.targets.triton.tiles import TileLines

_LARGEST_PRODUCT = 2**11
"""Numbers a block that a product holds before it is summed; larger ones go row by row."""
_FEWEST_DOT = 16
"""The smallest size of any axis of `tl.dot`."""
_DOT_STREAM = 2**6
"""Columns of the operands of a `tl.dot` that are in memory, which are read so many at a time."""
_UNROLLED_ROWS = 8
"""Rows of a product that stay in registers."""
STRIP = 2**7
"""Columns of a part of vectors that are multiplied: 16 threads add up a row of a block."""
_STAGES = 3
"""Of the loops that read operands as they are needed."""
_STREAM, _SHORTEST_STREAM = 2**10, 2**3
"""Numbers a block of a product that is summed as its operands are read; the fewest columns at a time."""


class ProductLines(TileLines):
    """Writes products; operands may be sums of pairs."""

    def product(self, x: Tile, y: Tile) -> Tile:
        return self.products([(x, y)])

    def products(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        """The sum of the products of pairs of equal shapes."""
        pairs = [(self.as_cut(x), self.as_cut(y)) for x, y in pairs]
        x, y = beside_each(pairs)
        in_memory = all(tile.memory for pair in pairs for tile in pair)
        widest = max(part.width for part in x.parts)
        if self._on_tensor_cores(x, y):
            long = sum(part.width for part in x.parts) > _DOT_STREAM
            return self._dot_streamed(pairs) if in_memory and long else self._dot(pairs)
        over = y if x.blocks else x
        if x.blocks != y.blocks and in_memory and over.rows <= _UNROLLED_ROWS and 1 in (x.height, y.height):
            if over.rows > 1:
                return self._product_unrolled(pairs)
            x, y = beside_each([(self._strips(x), self._strips(y)) for x, y in pairs])
            self.shape, widest = "vector", STRIP
        if x.height * y.height * widest <= _LARGEST_PRODUCT or x.height == y.height == 1:
            return self._product_at_once(x, y, padding=not in_memory)
        if in_memory and x.blocks != y.blocks and _STREAM // (x.height * y.height) >= _SHORTEST_STREAM:
            return self._product_streamed(pairs)
        return self._product_by_rows(x, y)

    def _strips(self, x: Tile) -> Tile:
        """Read again in parts of the same width, with zeros as padding."""
        if x.cols <= STRIP:
            return x
        pointer, _, step = x.memory.partition(" + {row} * ")
        parts = []
        for first in range(0, x.cols, STRIP):
            count = min(STRIP, x.cols - first)
            if not x.blocks:
                text = self.plain(pointer, x.rows, count, first, STRIP, step)
            else:
                text = f"{self._stored(x, first, count, STRIP)}.to(tl.float32)"
            parts.append(Part(self.let(text), count, STRIP))
        return replace(x, parts=tuple(parts))

    def _stored(self, x: Tile, first: int, count: int, width: int) -> str:
        """Columns of blocks in memory, in their format there, with zeros as padding."""
        pointer, _, step = x.memory.partition(" + {row} * ")
        place = f"{pointer} + ({self.offsets(x.rows, x.cols, first, width, step)})"
        return self.read(place, self.inside(x.rows, count, width), x.memory in self.late)

    def _product_at_once(self, x: Tile, y: Tile, padding: bool) -> Tile:
        """`padding`: whether anything but zeros may stand there."""
        blocks = x.blocks or y.blocks
        at, other = ("", "") if 1 in (x.height, y.height) else ("[:, None, :, :]", "[:, :, None, :]")
        by_width: dict[int, list[str]] = {}
        for a, b in zip(x.parts, y.parts, strict=True):
            text = f"{a.name}{at} * {b.name}{other}"
            if padding and a.padded:
                text = f"tl.where({self.index(2, a.width)}{'[None]' if at else ''} < {a.cols}, {text}, 0.0)"
            by_width.setdefault(a.width, []).append(text)
        axis = 3 if at else 2
        total = " + ".join(f"tl.sum({' + '.join(texts)}, {axis})" for texts in by_width.values())
        count = self.blocks if blocks else "1"
        name = self.let(f"tl.reshape({total}, ({count}, {y.height}, {x.height}))")
        found = self.as_cut(Tile(y.rows, (Part(name, x.rows, x.height),), blocks))
        return self.counted(found, x.height * y.height * sum(part.width for part in x.parts))

    def _streamed(
        self,
        pairs: Sequence[tuple[Tile, Tile]],
        width: int,
        line: Callable[[str, str], str],
        out: str,
    ) -> None:
        """`out = line(x, y)` for `width` columns of each pair at a time, which are read when needed."""
        for pair in pairs:
            first = self.name("first_col")
            self.area.add(f"for {first} in tl.range(0, {pair[0].cols}, {width}, num_stages={_STAGES}):")
            loaded = []
            for tile in pair:
                row, col = self.index(1, tile.height), f"({first} + {self.index(2, width)})"
                masks = [f"({row} < {tile.rows})"] if tile.height != tile.rows else []
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
        found = self.as_cut(Tile(y.rows, (Part(name, x.rows, x.height),), True))
        return self.counted(found, x.height * y.height * width)

    def _product_unrolled(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        """Vectors of blocks with each of a few rows, which stay in registers."""
        x, y = pairs[0]
        over_x = not x.blocks
        over = x if over_x else y
        self.shape = "rows"
        parts, out = [], "0.0"
        for at in range(over.rows):
            by_width: dict[int, list[str]] = {}
            for pair in pairs:
                rows, vectors = pair if over_x else pair[::-1]
                first = 0
                for a, b in zip(rows.parts, vectors.parts, strict=True):
                    name = self.let(self._row_of(rows, a, first, str(at)))
                    text = f"{b.name} * {name}"
                    by_width.setdefault(a.width, []).append(text)
                    first += a.cols
            total = " + ".join(
                f"tl.sum({' + '.join(texts)}, 2, keep_dims=True)" for texts in by_width.values()
            )
            if over_x:
                parts.append(Part(self.let(total), 1, 1))
            else:
                out = self.let(f"tl.where({self.index(1, over.height)} == {at}, {total}, {out})")
        found = Tile(y.rows, tuple(parts) if over_x else (Part(out, 1, 1),), True)
        return self.counted(found, sum(part.width for pair in pairs for part in pair[0].parts))

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
        return self.counted(self.as_cut(Tile(y.rows, (Part(out, x.rows, x.height),), blocks)))

    def _row_of(self, x: Tile, part: Part, first: int, row: str) -> str:
        if x.blocks or not x.memory:
            chosen = f"tl.where({self.index(1, x.height)} == {row}, {part.name}, 0.0)"
            return f"tl.sum({chosen}, 1, keep_dims=True)"
        pointer = x.memory.format(row=row)
        if not x.blocks:
            return self.plain(pointer, 1, part.cols, first, part.width, 0)
        mask = self.inside(1, part.cols, part.width)
        guard = f", mask={mask}, other=0.0" if mask else ""
        return f"tl.load({pointer} + ({self.offsets(1, x.cols, first, part.width)}){guard}).to(tl.float32)"

    def _on_tensor_cores(self, x: Tile, y: Tile) -> bool:
        if not self.tensor_cores or x.blocks == y.blocks:
            return False
        row = y if x.blocks else x
        fewest = 4 if x.exact and y.exact else _UNROLLED_ROWS + 1
        return row.rows >= fewest and all(part.width >= _FEWEST_DOT for part in x.parts)

    def _dot(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        x, y = beside_each(pairs)
        n = max((y if x.blocks else x).height, _FEWEST_DOT)
        total = f"tl.zeros(({self.blocks} * {(x if x.blocks else y).height}, {n}), tl.float32)"
        for pair in pairs:
            block, row = pair if x.blocks else pair[::-1]
            first = 0
            for a, b in zip(block.parts, row.parts, strict=True):
                left, right = (self.without_padding(t, p, 2, "0.0") for t, p in ((block, a), (row, b)))
                if block.memory:
                    left = self._stored(block, first, a.cols, a.width)
                if row.memory:  # read with room for as many rows as `tl.dot` wants
                    pointer, _, step = row.memory.partition(" + {row} * ")
                    right = self.let(self.plain(pointer, row.rows, b.cols, first, b.width, step, n))
                total = self.let(self._matmul(*pair, left, right, a.width, total))
                first += a.cols
        return self._from_matmul(x, y, total)

    def _dot_streamed(self, pairs: Sequence[tuple[Tile, Tile]]) -> Tile:
        x, y = pairs[0]
        block, row = (x, y) if x.blocks else (y, x)
        n = max(row.height, _FEWEST_DOT)
        total = self.let(f"tl.zeros(({self.blocks} * {block.height}, {n}), tl.float32)")
        for pair in pairs:
            block, row = pair if x.blocks else pair[::-1]
            first, col = self.name("first_col"), self.span(_DOT_STREAM)
            self.area.add(f"for {first} in tl.range(0, {x.cols}, {_DOT_STREAM}, num_stages={_STAGES}):")
            with self.deeper():
                left = self.let(self._columns(block, block.height, f"({first} + {col})"))
                right = self.let(self._columns(row, n, f"({first} + {col})"))
                self.area.add(f"{total} = {self._matmul(*pair, left, right, _DOT_STREAM, total)}")
        return self._from_matmul(x, y, total)

    def _columns(self, x: Tile, height: int, col: str) -> str:
        """Some columns of an operand in memory, as a matrix in its format there, zeros as padding."""
        pointer, _, step = x.memory.partition(" + {row} * ")
        masks = [f"({col} < {x.cols})[None, :]"] if x.cols % _DOT_STREAM else []
        if x.blocks and height == 1:
            ids = self.let(f"tl.reshape(block, ({self.blocks}, 1))", "ids")
            pointer = re.sub(r"\bblock\b", ids, pointer)
            place = f"{pointer} + {col}[None, :]"
        elif x.blocks:
            masks = [f"({col} < {x.cols})[None, None, :]"] if masks else []
            masks += [f"({self.index(1, height)} < {x.rows})"] if height != x.rows else []
            place = f"{pointer} + {self.index(1, height)} * {step} + {col}[None, None, :]"
        else:
            row = f"{self.span(height)}[:, None]"
            masks += [f"({row} < {x.rows})"] if height != x.rows else []
            place = f"{pointer} + {row} * {step or 0} + {col}[None, :]"
        guard = f", mask={' & '.join(masks)}, other=0.0" if masks else ""
        return f"tl.load({place}{guard})"

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
        self.shape = "dot"
        self.fewest = max(self.fewest, -(-_FEWEST_DOT // block.height))
        if y.blocks:
            name = self.let(f"tl.reshape({total}, ({self.blocks}, {block.height}, {n}))")
            return self.counted(Tile(y.rows, (Part(name, x.rows, n),), True))
        if block.height == 1:
            name = self.let(f"tl.reshape({total}, ({self.blocks}, {n}, 1))")
        else:
            shaped = f"tl.reshape({total}, ({self.blocks}, {block.height}, {n}))"
            name = self.let(f"tl.permute({shaped}, (0, 2, 1))")
        return self.counted(Tile(y.rows, (Part(name, x.rows, block.height),), True, room=n))


def beside(tiles: Sequence[Tile]) -> Tile:
    """Tiles of equal rows as one with the columns of all."""
    if len(tiles) == 1:
        return tiles[0]
    parts = tuple(part for tile in tiles for part in tile.parts)
    return Tile(tiles[0].rows, parts, tiles[0].blocks, all(tile.exact for tile in tiles))


def beside_each(pairs: Sequence[tuple[Tile, Tile]]) -> tuple[Tile, Tile]:
    return beside([x for x, _ in pairs]), beside([y for _, y in pairs])
