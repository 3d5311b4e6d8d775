"""Where the values that cross kernels lie: those of rows, of tiles, and of blocks, and weights."""

from __future__ import annotations

from dataclasses import dataclass

from vortex.graph.model import Ref, RefKind, Stage
from vortex.targets.triton.exact import exact_values
from vortex.targets.triton.schedule import Schedule

_ALIGNED = 8
"""Numbers: what is loaded 16 bytes at a time starts at a multiple of them."""


@dataclass(frozen=True)
class Slot:
    """A value `[rows, cols]` that starts at the number `first` of its buffer's entry."""

    first: int
    rows: int
    cols: int


class _Entry:
    """An entry of a buffer, filled slot by slot."""

    def __init__(self) -> None:
        self.size = 0

    def add(self, rows: int, cols: int) -> Slot:
        slot = Slot(self.size, rows, cols)
        self.size += -(-rows * cols // _ALIGNED) * _ALIGNED
        return slot


class Layout:
    """`values`: slots in the entry of a row, of row values and of final statistics `(node, number)`.
    `narrow`: of those row values whose numbers are `exact`, for tensor cores, in the format that they take.
    `partials`: by block stage, slots in the entry of a tile of a row. `kept`: values of blocks, each in a
    buffer of its own. `weights`: slots of the constants of a layer, `(node, rows of which kind)`.
    """

    def __init__(self, schedule: Schedule, tensor_cores: bool = False) -> None:
        self.schedule = schedule
        self.exact = exact_values(schedule)
        rows, narrow, weights = _Entry(), _Entry(), _Entry()
        self.values: dict[Ref, Slot] = {}
        self.narrow: dict[Ref, Slot] = {}
        self.totals: dict[tuple[int, int], Slot] = {}
        self.partials: dict[int, dict[tuple[int, int], Slot]] = {}
        self.partial_sizes: dict[int, int] = {}
        self.kept: list[Ref] = []
        self.weights: dict[int, Slot] = {}
        outside = self._outside()
        outside_refs = {Ref.at(index) for index in outside}
        outside_refs |= {ref for index in outside for ref in schedule.inputs(index)}
        for stage in schedule.stages:
            for ref in [*stage.kept, *map(Ref.at, stage.outside)]:
                if schedule.is_block(ref):
                    self.kept.append(ref)
                elif ref in self.values or ref in self.narrow:
                    continue
                elif tensor_cores and ref in self.exact and ref not in outside_refs:
                    self.narrow[ref] = narrow.add(*self.shape(ref))
                else:
                    self.values[ref] = rows.add(*self.shape(ref))
            tile = _Entry()
            for node in stage.statistics:
                shape = self.shape(schedule.operands[node][0])
                for number in range(len(schedule.emit(node).statistics)):
                    if not stage.of_rows:
                        self.partials.setdefault(stage.number, {})[node, number] = tile.add(*shape)
                    elif schedule.emit(node).applied is not None:
                        self.totals[node, number] = rows.add(*shape)
            if tile.size:
                self.partial_sizes[stage.number] = tile.size
        for index in schedule.live:
            for ref in schedule.inputs(index):
                if schedule.is_constant(ref) and index not in outside:
                    self.weights.setdefault(ref.node, weights.add(*self.shape(ref)))
            if schedule.emit(index).window is not None:
                r, c = self.shape(Ref.at(index))
                taps = schedule.emit(index).taps(schedule.steps[index].args)
                self.weights[index] = weights.add(taps * r, c)
        self.row_size, self.narrow_size, self.weights_size = rows.size, narrow.size, weights.size

    def _outside(self) -> set[int]:
        return {index for stage in self.schedule.stages for index in stage.outside}

    def shape(self, ref: Ref) -> tuple[int, int]:
        found = self.schedule.compiled.graph.type_of(Stage.INDEXER, ref)
        return found.rows.hint, found.cols.hint

    def name(self, ref: Ref, stage: Stage = Stage.INDEXER) -> str:
        """What a value is called in the source."""
        if ref.kind is RefKind.QUERY:
            return "q"
        if ref.kind is RefKind.FIELD:
            return ref.name if ref.name in self.schedule.injected else f"field_{ref.name}"
        return f"{self.schedule.compiled.graph.program(stage)[ref.node].op.lower()}_{ref.node}"
