"""The text of block stages: scores, and what later stages need of each block and of each tile of blocks."""

from __future__ import annotations

from vortex.graph.model import Ref
from vortex.ops.emit import Tile
from vortex.targets.triton.kernel import Body, Kernel, ops_of, plus, save
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.tiles import NEUTRAL


def block_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> Body:
    """Programs share the chunks of the step, tile by tile. What a tile's turn needs is loaded one turn ahead
    (block ids), or two (which row and place it has), so that no turn waits for more than its own data."""
    made = Kernel(schedule, layout, exact, tensor_cores, "BN", 2)
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
    ids = (
        "tl.load(table + {0}row // SHARE * BLOCKS + {0}start + lane, mask={0}start + lane < BLOCKS, other=0)"
    )
    given = "chunks, {}, items, HEADS, CHUNK, TILE"
    lines = [
        *made.head.lines,
        "    items = tl.load(chunk_count) * (CHUNK // TILE * HEADS)",
        "    turn, turns = tl.program_id(0), tl.num_programs(0)",
        f"    request, start, row = piece({given.format('turn')})",
        f"    next_request, next_start, next_row = piece({given.format('turn + turns')})",
        f"    entry, last = {ids.format('')}, tl.load(n + request) - EOS",
        "    for item in range(turn, items, turns):",
        "        place = start + lane",
        "        valid = place < tl.minimum(start + TILE, last)",
        "        block = tl.where(valid, entry, 0).to(tl.int64) * SHARE + row % SHARE",
        f"        entry, last = {ids.format('next_')}, tl.load(n + next_request) - EOS",
        *made.item.lines,
        *body.lines,
        "        request, start, row = next_request, next_start, next_row",
        f"        next_request, next_start, next_row = piece({given.format('item + 2 * turns')})",
    ]
    doc = f"Of each scored block: {ops_of(layout, stage.nodes) or 'copies'}."
    return Body(f"blocks_{stage.number}", doc, tuple(lines), w.widest, w.scratch, w.fewest, w.shape)


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
