"""Which kernel does what: a compiled graph as row stages and block stages that take turns.

Stages are numbered. An even stage works on rows (on the query, constants, request fields and statistics),
an odd one on the scored blocks of each row. Stage 0 is the prologue. An op over blocks needs no kernel of its
own: the stage that makes its operand reduces it tile by tile, the next row stage finishes the statistics, and
the block stage after that applies them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vortex.graph.model import Ref, RefKind, Stage
from vortex.ops.emit import Emit
from vortex.targets.compiled import CompiledGraph, Instruction

LARGEST_ROW_TILE = 2**14
"""Numbers of a row's value that one program holds; larger ones are left to the op's own semantics."""


@dataclass
class StagePlan:
    """The work of one stage, by positions in the indexer program.

    `nodes` run on each row, or on each block. `statistics`: ops over blocks whose operand this stage has
    (a block stage reduces tiles, a row stage all tiles of a row). `outside`: row nodes that run after the
    stage's kernel, by the op's own semantics. `saves`: Saves. `kept`: values that later stages read.
    `scores`: selections whose score this stage has.
    """

    number: int
    nodes: list[int] = field(default_factory=list)
    statistics: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    saves: list[int] = field(default_factory=list)
    kept: list[Ref] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)

    @property
    def of_rows(self) -> bool:
        return self.number % 2 == 0

    @property
    def has_kernel(self) -> bool:
        return bool(self.nodes or self.statistics or self.saves or self.scores or self.kept)


class Schedule:
    """The stages of a graph, in order, those without work left out.

    `operands`: where each node finds its operands; `Load` and `Save` are no copies.
    """

    def __init__(self, compiled: CompiledGraph) -> None:
        self.compiled = compiled
        self.steps: dict[int, Instruction] = {step.index: step for step in compiled.live}
        self.operands = {
            index: tuple(self.source(ref) for ref in step.node.inputs) for index, step in self.steps.items()
        }
        self.injected = {each.name for each in compiled.graph.injected}
        self.saved = {node.output for node in compiled.graph.indexer if node.output}
        self.pairs = self._pairs()
        self.live = self._live()
        self.at: dict[int, int] = {}
        for index in self.live:
            self.at[index] = self._stage(index)
        self._outside = self._run_outside()
        self._delay_saves()
        self.stages = self._stages()

    def source(self, ref: Ref) -> Ref:
        """The value or field that a reference stands for."""
        while ref.kind is RefKind.NODE and self.compiled.indexer[ref.node].node.op in ("Load", "Save"):
            (ref,) = self.compiled.indexer[ref.node].node.inputs
        return ref

    def emit(self, index: int) -> Emit:
        return self.steps[index].op.triton

    def is_block(self, ref: Ref) -> bool:
        """Whether a value differs between the blocks of a row."""
        return self.compiled.graph.type_of(Stage.INDEXER, ref).has_blocks

    def across(self, index: int) -> bool:
        """Whether a node reduces over the blocks of a row."""
        step = self.steps[index]
        return bool(step.op.triton.statistics) and step.op.across_blocks(step.args)

    def is_constant(self, ref: Ref) -> bool:
        return ref.kind is RefKind.NODE and self.steps[ref.node].op.constant

    def is_save(self, index: int) -> bool:
        return self.steps[index].op.side_effect

    def _pairs(self) -> dict[int, tuple[int, int]]:
        """Sums of two products, which are one product of longer vectors: `Add -> (GeMM, GeMM)`."""
        readers: dict[int, int] = {}
        for operands in self.operands.values():
            for ref in operands:
                if ref.kind is RefKind.NODE:
                    readers[ref.node] = readers.get(ref.node, 0) + 1
        for pick in self.compiled.selections:
            score = self.source(pick.score)
            readers[score.node] = readers.get(score.node, 0) + 1
        found = {}
        for index, step in self.steps.items():
            if step.op.name != "Add" or (step.args.number("alpha"), step.args.number("beta")) != (1.0, 1.0):
                continue
            left, right = (ref.node for ref in self.operands[index])
            if left < 0 or right < 0 or left == right:
                continue
            products = [self.steps[at] for at in (left, right)]
            if any(each.op.name != "GeMM" or readers[each.index] != 1 for each in products):
                continue
            one, two = ([self._shape(ref) for ref in self.operands[at]] for at in (left, right))
            if one == two:
                found[index] = (left, right)
        return found

    def _shape(self, ref: Ref) -> tuple[int, bool]:
        found = self.compiled.graph.type_of(Stage.INDEXER, ref)
        return found.rows.hint, found.has_blocks

    def _live(self) -> list[int]:
        """What scores and saves depend on, in order; of a pair of products only their sum."""
        stack = [self.source(pick.score) for pick in self.compiled.selections]
        stack += [Ref.at(index) for index in self.steps if self.is_save(index)]
        found: set[int] = set()
        while stack:
            ref = stack.pop()
            if ref.kind is RefKind.NODE and ref.node not in found:
                found.add(ref.node)
                stack += self.inputs(ref.node)
        return sorted(found)

    def inputs(self, index: int) -> tuple[Ref, ...]:
        """What a node reads: of a sum of two products, the operands of both."""
        if index in self.pairs:
            left, right = self.pairs[index]
            return (*self.operands[left], *self.operands[right])
        return self.operands[index]

    def _made(self, ref: Ref) -> int:
        """The first stage of its kind in which a value can be read."""
        if ref.kind is RefKind.NODE:
            return self.at[ref.node]
        return 1 if self.is_block(ref) else 0

    def _stage(self, index: int) -> int:
        """The earliest stage that can run a node."""
        made = [(self._made(ref), self.is_block(ref)) for ref in self.inputs(index)]
        if self.across(index):
            return made[0][0] + (1 if self.emit(index).finished else 2)
        if self.emit(index).window is not None:
            return max(stage + 2 if blocks else stage for stage, blocks in made)
        if not self.is_block(Ref.at(index)):
            return max((stage for stage, _ in made), default=0)
        return max((stage if blocks else stage + 1 for stage, blocks in made), default=1)

    def _run_outside(self) -> set[int]:
        """Row nodes that do not run in a kernel: those without an emission, large ones, and those of the
        same stage that need their results."""
        found: set[int] = set()
        for index in self.live:
            if self.is_block(Ref.at(index)) or self.steps[index].op.constant or self.is_save(index):
                continue
            refs = self.inputs(index)
            sizes = [self._numel(ref) for ref in (*refs, Ref.at(index))]
            emit, args = self.emit(index), self.steps[index].args
            alone = not self.across(index) and (emit.lanes is None or not emit.holds(args))
            later = any(ref.node in found and self.at[ref.node] == self.at[index] for ref in refs)
            if not self.across(index) and (alone or later or max(sizes) > LARGEST_ROW_TILE):
                found.add(index)
        return found

    def _numel(self, ref: Ref) -> int:
        return self.compiled.graph.type_of(Stage.INDEXER, ref).numel

    def _delay_saves(self) -> None:
        """A field is written in, or after, the last stage that reads it."""
        moved = True
        while moved:
            moved = False
            for index in self.live:
                if not self.is_save(index):
                    continue
                name, stage = self.steps[index].node.output, self.at[index]
                (value,) = self.operands[index]
                if value.node in self._outside:
                    stage = max(stage, self.at[value.node] + 2)
                for reader in self.live:
                    if Ref.field(name or "") in self.inputs(reader) and reader != index:
                        last = self.at[reader] + (reader in self._outside)
                        stage = max(stage, last + (last + stage) % 2)
                moved |= stage != self.at[index]
                self.at[index] = stage

    def _stages(self) -> list[StagePlan]:
        plans: dict[int, StagePlan] = {}

        def plan(number: int) -> StagePlan:
            return plans.setdefault(number, StagePlan(number))

        for index in self.live:
            number = self.at[index]
            if self.is_save(index):
                plan(number).saves.append(index)
            elif index in self._outside:
                plan(number).outside.append(index)
            elif not self.steps[index].op.constant:
                if self.across(index):
                    made = self._made(self.operands[index][0])
                    plan(made).statistics.append(index)
                    plan(made + 1).statistics.append(index)
                if not (self.across(index) and self.emit(index).finished):
                    plan(number).nodes.append(index)
        for at, pick in enumerate(self.compiled.selections):
            plan(self._made(self.source(pick.score))).scores.append(at)
        for ref in dict.fromkeys(self._crossing()):
            plan(self._made(ref)).kept.append(ref)
        return [plans[number] for number in sorted(plans)]

    def _crossing(self) -> Iterator[Ref]:
        """Values that are read by another stage than the one that makes them."""
        for index in self.live:
            windowed = self.emit(index).window is not None
            for ref in self.inputs(index):
                stage = self.at[index] if not self.across(index) else None
                made = self._made(ref)
                if ref.kind is RefKind.FIELD and windowed:
                    yield ref
                if ref.kind is not RefKind.NODE or self.is_constant(ref) or ref.node in self._outside:
                    continue
                if stage is None:
                    if self.emit(index).applied is not None:
                        yield ref
                elif stage != made or index in self._outside:
                    yield ref
