"""What a search optimises: accuracy up, bytes per decode step down, with a floor under the accuracy."""

from __future__ import annotations

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
