"""Which results surely are numbers of the format that the query, the pool and the fields are stored in:
products of two of them may run on tensor cores in that format."""

from __future__ import annotations

from vortex.graph.model import Format, Ref, RefKind, Stage
from vortex.targets.triton.schedule import Schedule


def exact_values(schedule: Schedule) -> set[Ref]:
    """The exact nodes, the query and the fields of blocks (request fields are float32)."""
    graph = schedule.compiled.graph
    found = {Ref.query()}
    for index in sorted(schedule.steps):
        refs = schedule.operands[index]
        found |= {
            ref
            for ref in refs
            if ref.kind is RefKind.FIELD and graph.type_of(Stage.INDEXER, ref).format is Format.PAGED
        }
        if _exact(schedule, index, found):
            found.add(Ref.at(index))
    return found


def _exact(schedule: Schedule, index: int, known: set[Ref]) -> bool:
    step, refs = schedule.steps[index], schedule.operands[index]
    name, args = step.op.name, step.args
    if name == "MaskSlice":
        return step.op.triton.exact(args)
    if name == "Multiply" and known.issuperset(refs):  # by a mask of zeros and ones
        return any(
            ref.kind is RefKind.NODE and schedule.steps[ref.node].op.name == "MaskSlice" for ref in refs
        )
    if name == "Add" and sorted((args.number("alpha"), args.number("beta"))) == [-1.0, 1.0]:  # x - max(x, 0)
        x, above = refs if args.number("alpha") == 1.0 else refs[::-1]
        return x in known and above in known and _positive_part(schedule, above, x)
    return step.op.triton.exact(args) and known.issuperset(refs)


def _positive_part(schedule: Schedule, above: Ref, x: Ref) -> bool:
    if above.kind is not RefKind.NODE:
        return False
    step = schedule.steps[above.node]
    return step.op.name == "Relu" and schedule.operands[above.node] == (x,) and step.args.number("alpha") == 0
