"""What a search optimises: accuracy up, bytes per decode step down, with a floor under the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

DIRECTIONS = ("maximize", "minimize")
"""Of (accuracy, bytes), as Optuna names them."""


class Point(Protocol):
    """Anything measured: accuracy in [0, 1] and bytes moved per decode step of the whole model."""

    @property
    def accuracy(self) -> float: ...
    @property
    def bytes(self) -> float: ...


class Objectives(BaseModel):
    """`floor`: how far below dense (absolute, paired) an accuracy may lie for a candidate to be worth
    deploying."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: float = Field(default=0.05, ge=0.0, le=1.0)

    def constraint(self, accuracy: float, dense_accuracy: float) -> float:
        """Positive when the floor is broken, by how much: the sign that Optuna's constraints use."""
        return dense_accuracy - self.floor - accuracy


def dominates(a: Point, b: Point) -> bool:
    """a is nowhere worse than b and somewhere better."""
    nowhere_worse = a.accuracy >= b.accuracy and a.bytes <= b.bytes
    return nowhere_worse and (a.accuracy > b.accuracy or a.bytes < b.bytes)


def ranks(points: Sequence[Point]) -> list[int]:
    """The index of the front that each point lies on: 0 is the Pareto front, 1 the front of the rest, and
    so on."""
    result = [-1] * len(points)
    left = list(range(len(points)))
    rank = 0
    while left:
        front = [i for i in left if not any(dominates(points[j], points[i]) for j in left if j != i)]
        for i in front:
            result[i] = rank
        left = [i for i in left if result[i] < 0]
        rank += 1
    return result


def crowding(points: Sequence[Point]) -> list[float]:
    """NSGA-II's crowding distance over one front (Deb et al. 2002): large where a point stands alone."""
    result = [0.0] * len(points)
    if len(points) < 3:
        return [float("inf")] * len(points)
    for values in ([p.accuracy for p in points], [p.bytes for p in points]):
        order = sorted(range(len(points)), key=values.__getitem__)
        spread = values[order[-1]] - values[order[0]]
        result[order[0]] = result[order[-1]] = float("inf")
        if spread <= 0:
            continue
        for before, at, after in zip(order, order[1:], order[2:], strict=False):
            result[at] += (values[after] - values[before]) / spread
    return result
