"""How far a target may be from the reference: as far as the reference moves when its ops round off.

Random graphs cancel, exponentiate and compare, so no fixed tolerance is right for all of them. The reference
is therefore run a few times more, with the operands and the result of every op that rounds changed by a
relative `OFF` at most, up or down at random: its scores move by as much as the graph magnifies such changes.
How much is random too: two changes of one size would cancel in all runs, for one number in 2 ** SAMPLES,
wherever an op passes on its operand's change undiminished (`exp(x)` near x = 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch

from vortex.config import Dtype
from vortex.graph import FlowGraph, Geometry
from vortex.ops import Args, Row
from vortex.runtime.dtypes import rounded
from vortex.targets.compiled import Instruction
from vortex.targets.reference import ReferenceProgram

OFF: dict[Dtype, float] = {
    "float32": 2**-18,  # 64 roundings of 2**-24: sums of thousands of terms in any order, fast exp and log
    "float16": 2**-10,  # two roundings of 2**-11
    "bfloat16": 2**-8,  # two roundings of 2**-9
}
"""Relative change of a result, by the number format that a target keeps results in between its ops."""
RESULTS: dict[str, Dtype] = {}
"""That format, for targets that keep results in another one than float32."""
ATTENTION: dict[str, float] = {
    "float32": 2**-20,  # 16 roundings
    "bfloat16": 2**-9,  # one rounding, of a logit or of a weight
}
"""Relative change of a logit and of a weight, by the format of K and V."""
SAMPLES, SLACK, FLOOR = 6, 4.0, 1e-37
"""Runs of the changed reference; a target may be SLACK times further away; where float32 becomes denormal."""

EXACT = {"Parameter", "Fill", "Load", "Save", "Transpose", "Reshape", "MaskSlice", "Relu"}
EXACT |= {"Max", "Min", "MaxInterleave", "MinInterleave", "Maximum", "Minimum"}
EXACT |= {f"Where{name}" for name in ("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual")}
"""Ops whose result is one of their operands' numbers, or a constant: no target rounds it."""

_RANDOM = torch.Generator().manual_seed(0)
_CHANGES = (torch.randint(0, 2, (1 << 18,), generator=_RANDOM) * 2 - 1) * (
    1 - torch.rand(1 << 18, generator=_RANDOM) / 2
)
"""In parts of OFF: from a half to 1, up or down."""


class Unsteady(ReferenceProgram):
    """The reference in float32, fields included, with results that are `off`."""

    def __init__(self, graph: FlowGraph, geometry: Geometry, off: float, seed: int) -> None:
        super().__init__(graph, geometry, "float32")
        self.factors = 1.0 + off * _CHANGES
        self.random = Random(seed)
        self.cache = tuple(map(self._unsteady, self.cache))
        self.live = tuple(map(self._unsteady, self.live))

    def _unsteady(self, step: Instruction) -> Instruction:
        op = step.op

        def reference(args: Args, inputs: tuple[torch.Tensor, ...], row: Row) -> torch.Tensor:
            if op.name in EXACT:
                return op.reference(args, inputs, row).clone()
            return self._changed(op.reference(args, tuple(map(self._changed, inputs)), row))

        return replace(step, op=replace(op, reference=reference, vectorised=None))

    def _changed(self, x: torch.Tensor) -> torch.Tensor:
        count, room = x.numel(), len(self.factors)
        first = self.random.randrange(room)
        if count <= room - first:
            return x * self.factors[first : first + count].view(x.shape)
        return x * self.factors.roll(first).repeat(-(-count // room))[:count].view(x.shape)


@dataclass(frozen=True)
class Range:
    """What a target may give instead of `exact`: `low` to `high`, or anything where `settled` is false,
    because the changed runs disagree on what is finite, infinite and NaN."""

    exact: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    settled: torch.Tensor

    @classmethod
    def of(cls, exact: torch.Tensor, runs: Sequence[torch.Tensor]) -> Range:
        """From the reference and the changed runs."""
        moved = torch.stack(list(runs))
        alike = (moved == exact) | (moved.isnan() & exact.isnan()) | (moved.isfinite() & exact.isfinite())
        settled = alike.all(0)
        radius = SLACK * (moved - exact).abs().amax(0) + FLOOR
        radius = torch.where(settled & exact.isfinite(), radius, 0.0)
        return cls(exact, exact - radius, exact + radius, settled)

    def rounded(self, dtype: Dtype) -> Range:
        """The same after rounding to `dtype`."""
        return Range(*(rounded(x, dtype) for x in (self.exact, self.low, self.high)), self.settled)

    def outside(self, found: torch.Tensor) -> torch.Tensor:
        """True where `found` is not what a target may give."""
        inside = ((found >= self.low) & (found <= self.high)) | (found.isnan() & self.exact.isnan())
        return ~inside & self.settled

    def share(self, found: torch.Tensor) -> float:
        """The largest part of the tolerance that `found` uses up."""
        used = (found - self.exact).abs() / (self.high - self.exact)
        counted = used[self.settled & (found != self.exact) & self.exact.isfinite()]
        return float(counted.amax()) if len(counted) else 0.0

    def best(self, upper: bool) -> torch.Tensor:
        """The most (least) that a score may rank as, NaN below every number."""
        bound = self.high if upper else self.low
        unknown = float("inf") if upper else -float("inf")
        return bound.nan_to_num(-float("inf"), float("inf"), -float("inf")).where(self.settled, unknown)
