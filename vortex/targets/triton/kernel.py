"""One kernel while it is written: how it reads the values of others, and the lines of each op."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vortex.graph.model import Ref, RefKind
from vortex.ops.emit import Tile, power_of_two
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.tiles import Area, Shape, without_unused
from vortex.targets.triton.writer import TileWriter

LINE = 64
"""Numbers of 16 bits in a line of the cache. Of wider ones half of the lines are fetched."""


@dataclass(frozen=True)
class Body:
    """A kernel's lines, and what limits the blocks of its tiles: the most numbers that one of them has for
    each block, and the fewest blocks that `tl.dot` takes. `scratch`: numbers of memory that a program needs
    for each block of a tile. `finished`: numbers that a summary, which is made beside, reads or makes at
    most; `held`: those of a tile of it that is in registers. `kinds`: programs that share a row."""

    name: str
    doc: str
    lines: tuple[str, ...]
    widest: int
    scratch: int
    fewest: int = 1
    shape: Shape = "wide"
    finished: int = 0
    held: int = 0
    kinds: int = 1


class Kernel:
    """One kernel while it is written. `head` runs once a program, `item` once a row or a chunk, `body` once a
    tile of blocks."""

    def __init__(
        self, schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, blocks: str, depth: int
    ) -> None:
        self.schedule, self.layout, self.exact = schedule, layout, exact
        self.graph = schedule.compiled.graph
        self.head, self.item, self.body = Area([], 1), Area([], depth), Area([], depth)
        self.query = self.item
        self.w = TileWriter(self.head, self.body, blocks, tensor_cores)
        self.done: dict[Ref, Tile] = {}

    @contextmanager
    def at(self, area: Area, stem: str) -> Iterator[None]:
        before = self.w.area, self.w.stem
        self.w.area, self.w.stem = area, stem
        yield
        self.w.area, self.w.stem = before

    def operand(self, ref: Ref) -> Tile:
        """A value as a tile, loaded when it is first read."""
        if ref not in self.done:
            blocks = self.schedule.is_block(ref)
            stem = self.layout.name(ref) if ref.kind is RefKind.NODE else f"{ref.name or 'q'}_tile"
            rows = self.query if ref.kind is RefKind.QUERY else self.item
            with self.at(self.body if blocks else rows, stem):
                tile = self._block(ref) if blocks else self._row(ref)
            self.done[ref] = tile
        return self.done[ref]

    def _row(self, ref: Ref) -> Tile:
        rows, cols = self.layout.shape(ref)
        exact = ref in self.exact
        if ref.kind is RefKind.QUERY:
            return self.w.load(f"({query_of_row(rows)})", rows, cols, False, "q_head", exact=exact)
        if ref.kind is RefKind.FIELD:
            entry = f"(tl.load(owner + request).to(tl.int64) * HEADS + row % HEADS) * {rows * cols}"
            return self.w.load(f"(request_{ref.name} + {entry})", rows, cols, False)
        if ref.node in self.layout.weights:
            slot = self.layout.weights[ref.node]
            return self.w.load(f"(weights{plus(slot.first)})", rows, cols, False)
        return self.w.load(f"({row_value(self.layout, ref)})", rows, cols, False, exact=exact)

    def _block(self, ref: Ref) -> Tile:
        rows, cols = self.layout.shape(ref)
        exact = ref in self.exact
        if ref.kind is RefKind.NODE:
            return self.kept(ref, "place", "valid")
        ahead = ref.name not in self.schedule.saved
        if ref.name not in self.schedule.injected:
            pointer = f"(field_{ref.name} + block * {rows * cols})"
            return self.w.load(pointer, rows, cols, True, exact=exact, ahead=ahead)
        stride = f"{ref.name}_slot"
        return self.w.load(pool(ref.name), rows, cols, True, stride, exact=exact, ahead=ahead)

    def kept(self, ref: Ref, place: str, mask: str) -> Tile:
        """A value of the blocks at some places of the row, made by an earlier kernel."""
        rows, cols = self.layout.shape(ref)
        pointer = f"(kept_{self.layout.name(ref)} + (row * BLOCKS + {place}) * {rows * cols})"
        return self.w.load(pointer, rows, cols, True, mask=mask, exact=ref in self.exact)

    def node(self, index: int) -> None:
        """The lines of one op."""
        step, emit = self.schedule.steps[index], self.schedule.emit(index)
        if emit.window is not None:
            tile = self._window(index)
        elif index in self.schedule.pairs:
            left, right = self.schedule.pairs[index]
            operands = [[self.operand(ref) for ref in self.schedule.operands[at]] for at in (left, right)]
            with self.at(self.body, self.layout.name(Ref.at(index))):
                tile = self.w.products([(x, y) for x, y in operands])
        else:
            inputs = tuple(self.operand(ref) for ref in self.schedule.operands[index])
            with self.at(self.body, self.layout.name(Ref.at(index))):
                if self.schedule.across(index):
                    assert emit.applied is not None
                    tile = emit.applied(self.w, step.args, inputs[0], self._totals(index))
                else:
                    assert emit.lanes is not None
                    tile = emit.lanes(self.w, step.args, inputs)
        exact = Ref.at(index) in self.exact
        self.done[Ref.at(index)] = Tile(tile.rows, tile.parts, tile.blocks, exact, tile.memory)

    def _totals(self, index: int) -> tuple[Tile, ...]:
        found = []
        for number in range(len(self.schedule.emit(index).statistics)):
            slot = self.layout.totals[index, number]
            with self.at(self.item, f"{self.layout.name(Ref.at(index))}_total"):
                pointer = f"(values + row * {self.layout.row_size}{plus(slot.first)})"
                found.append(self.w.load(pointer, slot.rows, slot.cols, False))
        return tuple(found)

    def _window(self, index: int) -> Tile:
        step, emit, w = self.schedule.steps[index], self.schedule.emit(index), self.w
        (ref,) = self.schedule.operands[index]
        rows, cols = self.layout.shape(ref)
        slot = self.layout.weights[index]
        assert emit.window is not None
        with self.at(self.body, self.layout.name(Ref.at(index))):
            shape = f"({w.blocks}, {power_of_two(rows)}, {{}})"
            zero = w.tile(rows, cols, True, lambda first, count, width: zeros(shape.format(width)))
            back = w.name("back")
            self.body.add(f"for {back} in range({emit.taps(step.args)}):")
            with self.at(Area(self.body.lines, self.body.indent + 1), w.stem):
                x = self.kept(ref, f"(place - {back})", f"valid & (place - {back} >= BOS)")
                weight = w.load(f"(weights + {slot.first} + {back} * {rows * cols})", rows, cols, False)
                total = emit.window(w, step.args, (zero, x, weight))
                for old, new in zip(zero.parts, total.parts, strict=True):
                    w.area.add(f"{old.name} = {new.name}")
        return zero


def query_of_row(heads: int) -> str:
    """Where the query heads of a row start."""
    return f"q + request.to(tl.int64) * q_request + row % HEADS * {heads} * q_head"


def fetch(first: str, stride: str, rows: int, cols: int) -> str:
    """A call for a matrix that is soon read."""
    room = power_of_two(rows), power_of_two(-(-cols // LINE))
    return f"fetch({first}, {stride}, {rows}, {cols}, {LINE}, {room})"


def widest_of(tiles: Iterable[Tile], lines: list[str]) -> int:
    """Numbers of the widest tile that lines have: what is summed as it is read is none of theirs."""
    words = set(re.findall(r"\w+", "\n".join(without_unused(lines))))
    return max((tile.elements for tile in tiles if any(part.name in words for part in tile.parts)), default=1)


def row_value(layout: Layout, ref: Ref) -> str:
    """Where a value of the row is kept for later kernels."""
    if ref in layout.narrow:
        return f"narrow + row * {layout.narrow_size}{plus(layout.narrow[ref].first)}"
    return f"values + row * {layout.row_size}{plus(layout.values[ref].first)}"


def plus(offset: int) -> str:
    return f" + {offset}" if offset else ""


def zeros(shape: str) -> str:
    return f"tl.zeros({shape}, tl.float32)"


def pool(name: str) -> str:
    """Where a block's tokens of one kv head start in the pool."""
    return f"({name} + block // POOL_HEADS * (BLOCK_SIZE * {name}_slot) + block % POOL_HEADS * {name}_head)"


def ops_of(layout: Layout, nodes: list[int]) -> str:
    return ", ".join(layout.name(Ref.at(index)) for index in nodes)


def save(made: Kernel, stage: StagePlan, blocks: bool) -> None:
    """Fields are written when all lines that read them are done, in all threads of the program."""
    schedule, w = made.schedule, made.w
    saves = []
    for index in stage.saves:
        name = schedule.steps[index].node.output or ""
        saves.append((name, made.operand(schedule.operands[index][0])))
    if saves:
        w.barrier()
    for name, tile in saves:
        numel = tile.rows * tile.cols
        if blocks:
            element = f"field_{name}.dtype.element_ty"
            w.store(f"field_{name} + block * {numel}", tile, "valid", f"rounded({{0}}).to({element})")
        else:
            entry = f"(tl.load(owner + request).to(tl.int64) * HEADS + row % HEADS) * {numel}"
            w.store(f"request_{name} + {entry}", tile, "", "rounded({0})")
