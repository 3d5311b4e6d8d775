from __future__ import annotations

from dataclasses import dataclass

from search_spaces.objectives import Objectives, dominates


@dataclass(frozen=True)
class P:
    accuracy: float
    bytes: float


def test_dominance() -> None:
    assert dominates(P(0.9, 10), P(0.8, 10))
    assert dominates(P(0.9, 9), P(0.9, 10))
    assert not dominates(P(0.9, 10), P(0.9, 10))
    assert not dominates(P(0.9, 11), P(0.8, 10))


def test_the_constraint_is_the_floor_below_dense() -> None:
    objectives = Objectives(floor=0.05)
    assert objectives.constraint(0.93, 0.97) < 0 < objectives.constraint(0.9, 0.97)
