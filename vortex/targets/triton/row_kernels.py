"""The text of the prologue and of the row stages."""

from __future__ import annotations

from vortex.graph.model import Ref
from vortex.ops.emit import How, Tile
from vortex.targets.triton.kernel import Body, Kernel, ops_of, plus, save
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.tiles import NEUTRAL, Area
from vortex.targets.triton.writer import TileWriter


def row_lines(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> tuple[list[str], list[str], int, int]:
    """The lines of a row stage for one sparse row, those of the head first; widest tile, and scratch."""
    made = Kernel(schedule, layout, exact, tensor_cores, "SB", 3)
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
    save(made, stage, blocks=False)
    return made.head.lines, made.item.lines, w.widest, w.scratch


def _keep_row(made: Kernel, first: int, tile: Tile) -> None:
    made.w.store(f"values + row * {made.layout.row_size}{plus(first)}", tile)


def _finish(made: Kernel, stage: StagePlan, index: int) -> None:
    """The statistics of a row from those of its tiles."""
    schedule, layout, w = made.schedule, made.layout, made.w
    step, emit = schedule.steps[index], schedule.emit(index)
    source, totals = stage.number - 1, list[Tile]()
    size, slots = layout.partial_sizes[source], layout.partials[source]
    lane = w.index(0, 0)
    stem = layout.name(Ref.at(index))
    for number, statistic in enumerate(emit.statistics):
        with made.at(made.item, f"{stem}_total"):
            slot = slots[index, number]
            total = _neutral(w, slot.rows, slot.cols, statistic.how)
        start = w.name("start")
        made.item.add(f"for {start} in range(0, tl.cdiv(count, TILE), SB):")
        with made.at(Area(made.item.lines, made.item.indent + 1), f"{stem}_part"):
            entry = f"partials_{source} + (row * tiles + {start} + {lane}) * {size}"
            there = w.let(f"{start} + {lane} < tl.cdiv(count, TILE)", "there")
            parts = []
            for earlier in range(number + 1):
                part = slots[index, earlier]
                parts.append(w.load(f"({entry}{plus(part.first)})", part.rows, part.cols, True, mask=there))
            given = parts[number]
            if statistic.merged is not None:
                given = statistic.merged(w, step.args, given, tuple(parts[:number]), tuple(totals))
            masked = w.each(f"tl.where({there}, {{0}}, {NEUTRAL[statistic.how]})", given)
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


def _neutral(w: TileWriter, rows: int, cols: int, how: How) -> Tile:
    return w.tile(rows, cols, False, lambda first, count, width: w.filled(rows, width, NEUTRAL[how]))


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
