"""The text of block stages: scores, and what later stages need of each block and of each tile of blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from vortex.graph.model import Ref
from vortex.ops.emit import Tile
from vortex.targets.triton.kernel import Body, Kernel, ops_of, plus, save
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.tiles import NEUTRAL, without_unused

Frame = Callable[[Body, str, str, str, bool], Body]
PIECE = ("request", "start", "row", "place", "valid", "block")
"""What a tile's function is given of its piece of work."""


def block_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> tuple[Body, tuple[str, ...], Frame]:
    """Programs share the chunks of the step, tile by tile. What a tile's turn needs is loaded one turn ahead
    (block ids, and at its end the blocks), or two (which row and place it has), so that no turn waits for
    more than its own data. The first turn's are loaded while kernels before this one run: that can be the
    prologue and what is before it, which write no block that is scored; no fields that are saved are among
    them."""
    made = Kernel(schedule, layout, exact, tensor_cores, "BN", 1)
    w, body = made.w, made.body
    made.head.add("lane = tl.arange(0, BN)[:, None, None]")
    w.index(0, 0)
    made.head.lines.pop()
    for index in stage.nodes:
        made.node(index)
    for at in stage.scores:
        score = made.operand(schedule.source(schedule.compiled.selections[at].score))
        rounded = "{0} if scores.dtype.element_ty == tl.float32 else rounded({0})"
        w.store(
            f"scores + {f'({at} * rows + row)' if at else 'row'} * BLOCKS + place", score, "valid", rounded
        )
    for ref in stage.kept:
        rows, cols = layout.shape(ref)
        w.store(
            f"kept_{layout.name(ref)} + (row * BLOCKS + place) * {rows * cols}", made.operand(ref), "valid"
        )
    for index in stage.statistics:
        _partials(made, stage, index)
    save(made, stage, blocks=True)
    inner = without_unused([*made.item.lines, *body.lines])
    used = set(re.findall(r"\w+", "\n".join(inner)))
    reads = [(name, read) for name, read in w.ahead if name in used]
    if w.shape != "vector":  # others need the registers
        whole = [(name, read.replace("valid & ", "").replace(", mask=valid)", ")")) for name, read in reads]
        inner, reads = [*(f"    {name} = {read}" for name, read in whole), *inner], []
    once = ', eviction_policy="evict_first")'  # the second level of the cache keeps what is read again
    reads = [(name, read.removesuffix(")") + once) for name, read in reads]
    done = without_unused([*made.head.lines, *inner])
    doc = f"Of each scored block: {ops_of(layout, stage.nodes) or 'copies'}."
    tile = Body(f"tile_{stage.number}", doc, tuple(done), w.widest, w.scratch, w.fewest, w.shape)
    return tile, (*PIECE, *(name for name, _ in reads)), _frame(made, reads)


def _frame(made: Kernel, reads: list[tuple[str, str]]) -> Frame:
    """The kernel that calls a tile's function. `finish`: what more programs do, one a row, the first of the
    grid; `fetch`: what they do before they wait. `first`: what is before it may be the plan."""

    def frame(tile: Body, call: str, fetch: str, finish: str, first: bool) -> Body:
        ids = (
            "tl.load(table + {0}row // SHARE * BLOCKS + {0}start + lane, "
            "mask={0}start + lane < BLOCKS, other=0)"
        )
        given = "chunks, {}, items, room, HEADS, CHUNK, TILE"
        turn = [
            "place = start + lane",
            "valid = (place < tl.minimum(start + TILE, last)) & ({0} < items)",
            "block = tl.where(valid, entry, 0).to(tl.int64) * SHARE + row % SHARE",
            *(f"{name} = {read}" for name, read in reads),
            f"entry, last = {ids.format('next_')}, tl.load(n + next_request) - EOS",
        ]
        onward = [
            "request, start, row = next_request, next_start, next_row",
            f"next_request, next_start, next_row = piece({given.format('{0} + 2 * turns')})",
        ]
        items = "tl.load(chunk_count) * (CHUNK // TILE * HEADS)"
        lines = [*made.head.lines, *(["    follow(EARLY)"] if first else [])]
        if finish:
            lines += [
                "    beside = rows if SUMMARIES else 0",
                "    turn, turns = tl.maximum(tl.program_id(0) - beside, 0), tl.num_programs(0) - beside",
                "    if tl.program_id(0) < beside:",
                "        row = tl.cast(tl.program_id(0), tl.int64)",
                *([] if first else ["        if EARLY:", f"            {fetch}", "        follow(EARLY)"]),
                f"        {finish}",
                f"    items = tl.where(tl.program_id(0) < beside, 0, {items})",
            ]
        else:
            lines += ["    turn, turns = tl.program_id(0), tl.num_programs(0)", f"    items = {items}"]
        lines += [
            f"    request, start, row = piece({given.format('turn')})",
            f"    next_request, next_start, next_row = piece({given.format('turn + turns')})",
            f"    entry, last = {ids.format('')}, tl.load(n + request) - EOS",
        ]
        wait = [] if first else ["    follow(EARLY)"]
        begin = "turn"
        if reads:
            lines += [
                *("    " + line.replace("{0}", "turn") for line in turn),
                *wait,
                "    if turn < items:",
                f"        {call}",
                *("    " + line.replace("{0}", "turn") for line in onward),
            ]
            begin, wait = "turn + turns", []
        lines += [
            *wait,
            f"    for item in range({begin}, items, turns):",
            *("        " + line.replace("{0}", "item") for line in turn),
            f"        {call}",
            *("        " + line.replace("{0}", "item") for line in onward),
        ]
        return replace(tile, name=tile.name.replace("tile", "blocks"), lines=tuple(lines))

    return frame


def _partials(made: Kernel, stage: StagePlan, index: int) -> None:
    """The statistics of a tile, left for the next row stage."""
    schedule, layout, w = made.schedule, made.layout, made.w
    step, emit = schedule.steps[index], schedule.emit(index)
    x = made.operand(schedule.operands[index][0])
    earlier: list[Tile] = []
    entry = f"(row * tiles + (start - BOS) // TILE) * {layout.partial_sizes[stage.number]}"
    with made.at(made.body, f"{layout.name(Ref.at(index))}_part"):
        for number, statistic in enumerate(emit.statistics):
            given = statistic.of(w, step.args, x, tuple(earlier))
            masked = w.each(f"tl.where(valid, {{0}}, {NEUTRAL[statistic.how]})", given)
            part = w.across(masked, statistic.how)
            earlier.append(part)
            first = layout.partials[stage.number][index, number].first
            w.store(f"partials_{stage.number} + {entry}{plus(first)}", part)
