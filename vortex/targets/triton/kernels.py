"""The text of each kernel of a flow: the cache stage, the prologue and row stages, the block stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vortex.graph.model import Format, Ref, RefKind, Stage
from vortex.ops.emit import Tile, power_of_two
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.writer import NEUTRAL, Area, TileWriter


@dataclass(frozen=True)
class Body:
    """A kernel's lines, and what limits the size of its tiles: the most numbers that one of them has for each
    of its blocks. `scratch`: numbers of memory that a program needs for each block of a tile."""

    name: str
    doc: str
    lines: tuple[str, ...]
    widest: int
    scratch: int


class _Kernel:
    """One kernel while it is written. `head` runs once a program, `item` once a row or a chunk, `body` once a
    tile of blocks."""

    def __init__(
        self, schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, blocks: str, depth: int
    ) -> None:
        self.schedule, self.layout, self.exact = schedule, layout, exact
        self.graph = schedule.compiled.graph
        self.head, self.item, self.body = Area([], 1), Area([], depth), Area([], depth + (blocks == "BN"))
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
            with self.at(self.body if blocks else self.item, stem):
                tile = self._block(ref) if blocks else self._row(ref)
            self.done[ref] = tile
        return self.done[ref]

    def _row(self, ref: Ref) -> Tile:
        rows, cols = self.layout.shape(ref)
        exact = ref in self.exact
        if ref.kind is RefKind.QUERY:
            return self.w.load("(q + row * q_row)", rows, cols, False, "q_head", exact=exact)
        if ref.kind is RefKind.FIELD:
            entry = f"(tl.load(owner + request).to(tl.int64) * HEADS + row % HEADS) * {rows * cols}"
            return self.w.load(f"(request_{ref.name} + {entry})", rows, cols, False)
        if ref.node in self.layout.weights:
            slot = self.layout.weights[ref.node]
            return self.w.load(f"(weights + {slot.first})", rows, cols, False)
        return self.value(self.layout.values[ref].first, rows, cols, exact)

    def value(self, first: int, rows: int, cols: int, exact: bool = False) -> Tile:
        """A value of the row, made by an earlier kernel."""
        pointer = f"(values + row * {self.layout.row_size} + {first})"
        return self.w.load(pointer, rows, cols, False, exact=exact)

    def _block(self, ref: Ref) -> Tile:
        rows, cols = self.layout.shape(ref)
        exact = ref in self.exact
        if ref.kind is RefKind.NODE:
            return self.kept(ref, "place", "valid")
        if ref.name not in self.schedule.injected:
            return self.w.load(f"(field_{ref.name} + block * {rows * cols})", rows, cols, True, exact=exact)
        return self.w.load(pool(ref.name), rows, cols, True, f"{ref.name}_slot", exact=exact)

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
            with self.at(self._area(index), self.layout.name(Ref.at(index))):
                x, y = (side_by_side(one, two) for one, two in zip(*operands, strict=True))
                tile = self.w.product(x, y)
        else:
            inputs = tuple(self.operand(ref) for ref in self.schedule.operands[index])
            with self.at(self._area(index), self.layout.name(Ref.at(index))):
                if self.schedule.across(index):
                    assert emit.applied is not None
                    tile = emit.applied(self.w, step.args, inputs[0], self._totals(index))
                else:
                    assert emit.lanes is not None
                    tile = emit.lanes(self.w, step.args, inputs)
        exact = Ref.at(index) in self.exact
        self.done[Ref.at(index)] = Tile(tile.rows, tile.parts, tile.blocks, exact, tile.memory)

    def _area(self, index: int) -> Area:
        return self.body

    def _totals(self, index: int) -> tuple[Tile, ...]:
        found = []
        for number in range(len(self.schedule.emit(index).statistics)):
            slot = self.layout.totals[index, number]
            with self.at(self.item, f"{self.layout.name(Ref.at(index))}_total"):
                found.append(self.value(slot.first, slot.rows, slot.cols))
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


def zeros(shape: str) -> str:
    return f"tl.zeros({shape}, tl.float32)"


def pool(name: str) -> str:
    """Where a block's tokens of one kv head start in the pool."""
    return f"({name} + block // POOL_HEADS * (BLOCK_SIZE * {name}_slot) + block % POOL_HEADS * {name}_head)"


def side_by_side(left: Tile, right: Tile) -> Tile:
    """Two tiles of equal rows as one of more columns."""
    return Tile(left.rows, (*left.parts, *right.parts), left.blocks, left.exact and right.exact)


def ops_of(layout: Layout, nodes: list[int]) -> str:
    return ", ".join(layout.name(Ref.at(index)) for index in nodes)


def block_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> Body:
    """Programs share the chunks of the step; a chunk is done tile by tile."""
    made = _Kernel(schedule, layout, exact, tensor_cores, "BN", 2)
    w, body = made.w, made.body
    made.head.add("lane = tl.arange(0, BN)[:, None, None]")
    w.index(0, 0)
    made.head.lines.pop()
    for index in stage.nodes:
        made.node(index)
    for at in stage.scores:
        score = made.operand(schedule.source(schedule.compiled.selections[at].score))
        rounded = "{} if scores.dtype.element_ty == tl.float32 else rounded({})".replace("{}", "{0}")
        w.store(f"scores + ({at} * rows + row) * BLOCKS + place", score, "valid", rounded)
    for ref in stage.kept:
        rows, cols = layout.shape(ref)
        w.store(
            f"kept_{layout.name(ref)} + (row * BLOCKS + place) * {rows * cols}", made.operand(ref), "valid"
        )
    for index in stage.statistics:
        _partials(made, stage, index)
    _save(made, stage, blocks=True)
    lines = [
        *made.head.lines,
        "    items = tl.load(chunk_count) * HEADS",
        "    for item in range(tl.program_id(0), items, tl.num_programs(0)):",
        "        request = tl.load(chunks + item // HEADS * 2)",
        "        first = tl.load(chunks + item // HEADS * 2 + 1)",
        "        row = (request * HEADS + item % HEADS).to(tl.int64)",
        "        end = tl.minimum(first + CHUNK, tl.load(n + request) - EOS)",
        *made.item.lines,
        "        for start in range(first, end, BN):",
        "            place = start + lane",
        "            valid = place < end",
        "            entry = tl.load(table + row // SHARE * BLOCKS + place, mask=valid, other=0)",
        "            block = entry.to(tl.int64) * SHARE + row % SHARE",
        *body.lines,
    ]
    doc = f"Of each scored block: {ops_of(layout, stage.nodes) or 'copies'}."
    return Body(f"blocks_{stage.number}", doc, tuple(lines), w.widest, w.scratch)


def _partials(made: _Kernel, stage: StagePlan, index: int) -> None:
    """The statistics of a tile, left for the next row stage."""
    schedule, layout, w = made.schedule, made.layout, made.w
    step, emit = schedule.steps[index], schedule.emit(index)
    x = made.operand(schedule.operands[index][0])
    earlier: list[Tile] = []
    entry = f"(row * tiles + (start - BOS) // BN) * {layout.partial_sizes[stage.number]}"
    with made.at(made.body, f"{layout.name(Ref.at(index))}_part"):
        for number, statistic in enumerate(emit.statistics):
            given = statistic.of(w, step.args, x, tuple(earlier))
            masked = w.each(f"tl.where(valid, {{0}}, {NEUTRAL[statistic.how]})", given)
            part = w.across(masked, statistic.how)
            earlier.append(part)
            first = layout.partials[stage.number][index, number].first
            w.store(f"partials_{stage.number} + {entry} + {first}", part)


def _save(made: _Kernel, stage: StagePlan, blocks: bool) -> None:
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


def row_lines(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> tuple[list[str], list[str], int, int]:
    """The lines of a row stage for one sparse row, those of the head first; widest tile, and scratch."""
    made = _Kernel(schedule, layout, exact, tensor_cores, "SB", 3)
    made.body = made.item
    made.w.area = made.item
    w = made.w
    if stage.statistics:
        made.item.add("count = tl.load(n + request) - BOS - EOS")
    for index in sorted({*stage.nodes, *stage.statistics}):
        if index in stage.statistics:
            _finish(made, stage, index)
        if index in stage.nodes:
            made.node(index)
    for ref in stage.kept:
        _keep_row(made, layout.values[ref].first, made.operand(ref))
    _save(made, stage, blocks=False)
    return made.head.lines, made.item.lines, w.widest, w.scratch


def _keep_row(made: _Kernel, first: int, tile: Tile) -> None:
    made.w.store(f"values + row * {made.layout.row_size} + {first}", tile)


def _finish(made: _Kernel, stage: StagePlan, index: int) -> None:
    """The statistics of a row from those of its tiles."""
    schedule, layout, w = made.schedule, made.layout, made.w
    step, emit = schedule.steps[index], schedule.emit(index)
    source, totals = stage.number - 1, []
    size, slots = layout.partial_sizes[source], layout.partials[source]
    lane = w.index(0, 0)
    stem = layout.name(Ref.at(index))
    for number, statistic in enumerate(emit.statistics):
        neutral = NEUTRAL[statistic.how]
        with made.at(made.item, f"{stem}_total"):
            slot = slots[index, number]
            total = w.tile(
                slot.rows,
                slot.cols,
                False,
                lambda first, cols, width, rows=slot.rows: w.filled(rows, width, neutral),  # type: ignore[misc]
            )
        start = w.name("start")
        made.item.add(f"for {start} in range(0, tl.cdiv(count, TILE), SB):")
        with made.at(Area(made.item.lines, made.item.indent + 1), f"{stem}_part"):
            entry = f"partials_{source} + (row * tiles + {start} + {lane}) * {size}"
            there = w.let(f"{start} + {lane} < tl.cdiv(count, TILE)", "there")
            parts = []
            for earlier in range(number + 1):
                part = slots[index, earlier]
                parts.append(w.load(f"({entry} + {part.first})", part.rows, part.cols, True, mask=there))
            given = parts[number]
            if statistic.merged is not None:
                given = statistic.merged(w, step.args, given, tuple(parts[:number]), tuple(totals))
            masked = w.each(f"tl.where({there}, {{0}}, {neutral})", given)
            new = w.combined(total, w.across(masked, statistic.how), statistic.how)
            for old, part_ in zip(total.parts, new.parts, strict=True):
                w.area.add(f"{old.name} = {part_.name}")
        totals.append(total)
    with made.at(made.item, stem):
        if emit.finished is not None:
            made.done[Ref.at(index)] = emit.finished(w, step.args, tuple(totals), "count")
        else:
            for number, total in enumerate(totals):
                _keep_row(made, layout.totals[index, number].first, total)


def row_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> Body:
    head, lines, widest, scratch = row_lines(schedule, layout, exact, tensor_cores, stage)
    done = [*stage.statistics, *stage.nodes]
    text = [
        *head,
        "    for at in range(tl.program_id(0), rows, tl.num_programs(0)):",
        "        row = tl.cast(at, tl.int64)",
        "        request = at // HEADS",
        "        if tl.load(chosen + request) < tl.load(n + request):",
        *lines,
    ]
    doc = f"Of each sparse row: {ops_of(layout, done) or 'saves'}."
    return Body(f"rows_{stage.number}", doc, tuple(text), widest, scratch)


def prologue(
    schedule: Schedule,
    layout: Layout,
    exact: set[Ref],
    tensor_cores: bool,
    stage: StagePlan | None,
    summary_call: str,
    fresh: dict[str, tuple[int, int]],
) -> Body:
    """`fresh`: fields that start at zero in a block that has just been finished."""
    head: list[str] = []
    lines: list[str] = []
    widest = scratch = 1
    if stage is not None:
        head, lines, widest, scratch = row_lines(schedule, layout, exact, tensor_cores, stage)
    zero = TileWriter(Area(head, 1), Area([], 4), "1")
    zero._indices.update(line.split(" = ")[0].strip() for line in head)
    for name, (rows, cols) in fresh.items():
        zero.store(f"field_{name} + block * {rows * cols}", zero.constant("0.0", rows, cols))
    text = [
        *head,
        "    for at in range(tl.program_id(0), rows, tl.num_programs(0)):",
        "        row = tl.cast(at, tl.int64)",
        "        request = at // HEADS",
        "        length = tl.load(seq_len + request)",
    ]
    if summary_call or fresh:
        text += [
            "        if SUMMARIES:",
            "            if (length > 0) & (length % BLOCK_SIZE == 0):",
            "                last = tl.load(table + row // SHARE * BLOCKS + length // BLOCK_SIZE - 1)",
            "                block = last.to(tl.int64) * SHARE + row % SHARE",
            *([f"                {summary_call}"] if summary_call else []),
            *zero.area.lines,
        ]
    if lines:
        text += ["        if tl.load(chosen + request) < tl.load(n + request):", *lines]
    doc = "Of each row: the summary of the block that its token finishes"
    if stage is not None:
        doc += f"; where it is sparse: {ops_of(layout, stage.nodes) or 'copies'}"
    return Body("prologue", doc + ".", tuple(text), widest, scratch)


class _Summary(_Kernel):
    """The cache stage of one block; every tile has one."""

    def __init__(self, schedule: Schedule, layout: Layout) -> None:
        super().__init__(schedule, layout, set(), False, "1", 1)
        self.item = self.body = self.head
        self.w = TileWriter(Area([], 1), self.head, "1")

    def run(self) -> None:
        compiled, w = self.schedule.compiled, self.w
        done: list[Tile] = []
        for step in compiled.cache:
            inputs = tuple(
                done[ref.node] if ref.kind is RefKind.NODE else self._field(ref) for ref in step.node.inputs
            )
            w.stem = f"{step.op.name.lower()}_{step.index}"
            assert step.op.triton.lanes is not None
            done.append(step.op.triton.lanes(w, step.args, inputs))
        for step, tile in zip(compiled.cache, done, strict=True):
            name = step.node.output
            if name is not None:
                element = f"field_{name}.dtype.element_ty"
                pointer = f"field_{name} + block * {tile.rows * tile.cols}"
                w.store(pointer, tile, "", f"rounded({{0}}).to({element})")

    def _field(self, ref: Ref) -> Tile:
        if ref not in self.done:
            found = self.graph.type_of(Stage.CACHE, ref)
            rows, cols = found.rows.hint, found.cols.hint
            self.w.stem = f"{ref.name}_tile"
            if ref.name in self.schedule.injected:
                self.done[ref] = self.w.load(pool(ref.name), rows, cols, False, f"{ref.name}_slot")
            else:  # nothing has written it yet
                self.done[ref] = self.w.constant("0.0", rows, cols)
        return self.done[ref]


def summary_function(schedule: Schedule, layout: Layout) -> Body | None:
    """The cache stage, as a function of the block's id."""
    if not schedule.compiled.cache:
        return None
    made = _Summary(schedule, layout)
    made.run()
    lines = (*made.w.head.lines, *made.head.lines)
    names = ", ".join(step.op.name for step in schedule.compiled.cache)
    widest = max(
        [step.node.type.numel for step in schedule.compiled.cache]
        + [
            schedule.compiled.graph.type_of(Stage.CACHE, ref).numel
            for step in schedule.compiled.cache
            for ref in step.node.inputs
        ]
    )
    return Body("summarize_block", f"The cache stage of one block: {names}.", lines, widest, made.w.scratch)


def saved_fields(schedule: Schedule) -> dict[str, tuple[int, int]]:
    """Fields of blocks that the indexer saves and the cache stage does not write."""
    graph = schedule.compiled.graph
    written = {node.output for node in graph.cache}
    saved = {node.output for node in graph.indexer} - written
    return {
        field.name: (field.rows.hint, field.cols.hint)
        for field in graph.fields
        if field.format is Format.PAGED and field.name in saved
    }
