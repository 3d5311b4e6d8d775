from __future__ import annotations

from dataclasses import dataclass

from search_spaces.objectives import Objectives, crowding, dominates, ranks


@dataclass(frozen=True)
class P:
    accuracy: float
    bytes: float


def test_dominance() -> None:
    assert dominates(P(0.9, 10), P(0.8, 10))
    assert dominates(P(0.9, 9), P(0.9, 10))
    assert not dominates(P(0.9, 10), P(0.9, 10))
    assert not dominates(P(0.9, 11), P(0.8, 10))


def test_ranks_peel_fronts() -> None:
    points = [P(0.9, 10), P(0.5, 5), P(0.8, 10), P(0.4, 6), P(0.3, 11)]
    assert ranks(points) == [0, 0, 1, 1, 2]
    assert ranks([]) == []
    assert ranks([P(0.5, 5), P(0.5, 5)]) == [0, 0]


def test_crowding_prefers_lonely_points() -> None:
    found = crowding([P(0.1, 1), P(0.2, 2), P(0.25, 2.5), P(0.8, 8), P(0.9, 9)])
    assert found[0] == found[-1] == float("inf")
    assert found[1] < found[3]
    assert crowding([P(0.1, 1)]) == [float("inf")]


def test_the_constraint_is_the_floor_below_dense() -> None:
    objectives = Objectives(floor=0.05)
    assert objectives.constraint(0.93, 0.97) < 0 < objectives.constraint(0.9, 0.97)
