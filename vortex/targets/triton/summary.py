"""The text of the cache stage of one block."""

from __future__ import annotations

from vortex.graph.model import Format, Ref, RefKind, Stage
from vortex.ops.emit import Tile
from vortex.targets.triton.kernel import Body, Kernel, fetch, pool, widest_of
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule
from vortex.targets.triton.tiles import Area
from vortex.targets.triton.writer import TileWriter


class _Summary(Kernel):
    """The cache stage of one block; every tile has one."""

    def __init__(self, schedule: Schedule, layout: Layout) -> None:
        super().__init__(schedule, layout, set(), False, "1", 1)
        self.item = self.body = self.head
        self.w = TileWriter(Area([], 1), self.head, "1")
        self.results: list[Tile] = []

    def run(self) -> None:
        compiled, w, done = self.schedule.compiled, self.w, self.results
        for step in compiled.cache:
            inputs = tuple(
                done[ref.node] if ref.kind is RefKind.NODE else self._field(ref) for ref in step.node.inputs
            )
            w.stem = self.layout.name(Ref.at(step.index), Stage.CACHE)
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


_FINISHED = (
    "    length = tl.load(seq_len + row // HEADS)",
    "    if (length > 0) & (length % BLOCK_SIZE == 0):",
    "        last = tl.load(table + row // SHARE * BLOCKS + length // BLOCK_SIZE - 1)",
    "        block = last.to(tl.int64) * SHARE + row % SHARE",
)
"""Of a row whose token finishes a block: which one."""


def summary_function(schedule: Schedule, layout: Layout, as_read: bool = False) -> Body | None:
    """The cache stage, as a function of the block's id; `as_read`: see `TileLines`."""
    if not schedule.compiled.cache:
        return None
    made = _Summary(schedule, layout)
    made.w.as_read = as_read
    made.run()
    lines = (*made.w.head.lines, *made.head.lines)
    names = ", ".join(step.op.name for step in schedule.compiled.cache)
    largest = max(
        [step.node.type.numel for step in schedule.compiled.cache]
        + [
            schedule.compiled.graph.type_of(Stage.CACHE, ref).numel
            for step in schedule.compiled.cache
            for ref in step.node.inputs
        ]
    )
    doc = f"The cache stage of one block: {names}."
    widest = widest_of([*made.done.values(), *made.results], list(lines))
    return Body("summarize_block", doc, lines, widest, made.w.scratch, finished=largest)


def finish_function(schedule: Schedule, summary_call: str) -> Body | None:
    """The cache stage of the block that a row's token finishes; fields that it does not write are zero."""
    zero = TileWriter(Area([], 1), Area([], 2), "1")
    for name, (rows, cols) in saved_fields(schedule).items():
        zero.store(f"field_{name} + block * {rows * cols}", zero.constant("0.0", rows, cols))
    if not (summary_call or zero.area.lines):
        return None
    lines = [
        *zero.head.lines,
        *_FINISHED,
        *([f"        {summary_call}"] if summary_call else []),
        *zero.area.lines,
    ]
    return Body("finish_block", "The summary of the block that the row's token finishes.", tuple(lines), 1, 0)


def fetch_function(schedule: Schedule) -> Body:
    """For the tokens of that block to be in the second level of the cache when they are summarised."""
    graph = schedule.compiled.graph
    refs = {ref for step in schedule.compiled.cache for ref in step.node.inputs if ref.kind is RefKind.FIELD}
    lines = list(_FINISHED)
    for ref in sorted(refs, key=lambda ref: ref.name):
        if ref.name in schedule.injected:
            found = graph.type_of(Stage.CACHE, ref)
            lines.append(
                f"        {fetch(pool(ref.name), f'{ref.name}_slot', found.rows.hint, found.cols.hint)}"
            )
    doc = "Bring the tokens of the block that the row's token finishes nearer."
    return Body("fetch_block", doc, tuple(lines), 1, 0)


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
