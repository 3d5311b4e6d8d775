"""The text of block stages: scores, and what later stages need of each block and of each tile of blocks."""

from __future__ import annotations

from vortex.graph.model import Ref
from vortex.ops.emit import Tile
from vortex.targets.triton.kernel import Body, Kernel, ops_of, plus, save
from vortex.targets.triton.layout import Layout
from vortex.targets.triton.schedule import Schedule, StagePlan
from vortex.targets.triton.writer import NEUTRAL


def block_kernel(
    schedule: Schedule, layout: Layout, exact: set[Ref], tensor_cores: bool, stage: StagePlan
) -> Body:
    """Programs share the chunks of the step; a chunk is done tile by tile."""
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
    return Body(f"blocks_{stage.number}", doc, tuple(lines), w.widest, w.scratch, w.fewest)


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
