"""The text of the prologue and of the row stages."""

from __future__ import annotations

from vortex.graph.model import Ref
from vortex.ops.emit import How, Tile
from vortex.targets.triton.kernel import (
    Body,
    Kernel,
    fetch,
    ops_of,
    plus,
    query_of_row,
    row_value,
    save,
    widest_of,
)
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.tiles import NEUTRAL, Area
from vortex.targets.triton.writer import TileWriter


def row_lines(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> tuple[list[str], list[str], list[str], int, int]:
    """The lines of a row stage: of the head, those that read the query, and of a sparse row; widest tile, and
    scratch."""
    made = Kernel(schedule, layout, exact, tensor_cores, "SB", 3)
    made.query = Area([], 2)
    made.body = made.item
    made.w.area = made.item
    w = made.w
    w.as_read, w.early = True, made.query
    if stage.statistics:
        made.item.add("count = tl.load(n + request) - BOS - EOS")
    for index in sorted({*stage.nodes, *stage.statistics}):
        if index in stage.statistics:
            _finish(made, stage, index)
        if index in stage.nodes:
            made.node(index)
    for ref in stage.kept:
        value = "{0}.to(narrow.dtype.element_ty)" if ref in layout.narrow else "{0}"
        w.store(row_value(layout, ref), made.operand(ref), "", value)
    save(made, stage, blocks=False)
    widest = max(w.widest, widest_of(made.done.values(), [*made.query.lines, *made.item.lines]))
    return made.head.lines, made.query.lines, made.item.lines, widest, w.scratch


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
                first = layout.totals[index, number].first
                w.store(f"values + row * {layout.row_size}{plus(first)}", total)


def _neutral(w: TileWriter, rows: int, cols: int, how: How) -> Tile:
    return w.tile(rows, cols, False, lambda first, count, width: w.filled(rows, width, NEUTRAL[how]))


def row_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> Body:
    head, early, lines, widest, scratch = row_lines(schedule, layout, exact, tensor_cores, stage)
    done = [*stage.statistics, *stage.nodes]
    text = [
        *head,
        "    follow(EARLY)",
        "    for at in range(tl.program_id(0), rows, tl.num_programs(0)):",
        "        row = tl.cast(at, tl.int64)",
        "        request = at // HEADS",
        *early,
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
    finish_call: str,
) -> Body:
    """Programs for the summaries, if made here, and others for what depends on the query. Those alone
    are few, and run before all else: so the scores may start at once, as the blocks that they read first are
    older than the step. The query would arrive behind these blocks, were it not fetched before."""
    head: list[str] = []
    early: list[str] = []
    lines: list[str] = []
    widest = scratch = 1
    if stage is not None:
        head, early, lines, widest, scratch = row_lines(schedule, layout, exact, tensor_cores, stage)
    kinds = bool(finish_call) + bool(lines)
    at = "at % rows" if kinds > 1 else "at"
    wait = ["    follow(EARLY)"]
    if not finish_call:
        wait = [*_fetch_query(layout, early), "    lead(EARLY)"]
    text = [
        *head,
        *wait,
        f"    for at in range(tl.program_id(0), {'2 * rows' if kinds > 1 else 'rows'}, tl.num_programs(0)):",
        f"        row = tl.cast({at}, tl.int64)",
    ]
    if finish_call:
        mine = "(at < rows) & " if kinds > 1 else ""
        text += [f"        if {mine}SUMMARIES:", f"            {finish_call}"]
    if lines:
        sparse = "tl.load(chosen + request) < tl.load(n + request)"
        if kinds > 1:
            sparse = f"(at >= rows) & ({sparse})"
        text += [f"        request = {at} // HEADS", *early, f"        if {sparse}:", *lines]
    parts = ["the summary of the block that its token finishes"] if finish_call else []
    if stage is not None:
        parts.append(f"where it is sparse: {ops_of(layout, stage.nodes) or 'copies'}")
    doc = f"Of each row: {'; '.join(parts)}"
    return Body("prologue", doc + ".", tuple(text), widest, scratch, kinds=kinds)


def _fetch_query(layout: Layout, reads: list[str]) -> list[str]:
    heads, cols = layout.shape(Ref.query())
    where = query_of_row(heads)
    if not any(where in line for line in reads):
        return []
    return [
        "    if EARLY:",
        "        for at in range(tl.program_id(0), rows, tl.num_programs(0)):",
        "            row, request = at, at // HEADS",
        f"            {fetch(where, 'q_head', heads, cols)}",
    ]
