from __future__ import annotations

import numpy as np
import pytest

from evaluators.measure.measurement import Measurement, Split
from evaluators.measure.pareto import Outcome, Point, dominates, front, hypervolume, standings
from tests.evaluators.measure.records import DENSE_BYTES, measured

TASKS = tuple(f"t{i}" for i in range(11))


def simulated(
    difficulty: np.ndarray, gain: float, rng: np.random.Generator, split: Split, traffic: float = 300.0
) -> Measurement:
    """A candidate whose answers are right with the prompt's probability, shifted by `gain`."""
    right = (rng.random(difficulty.shape) < np.clip(difficulty + gain, 0, 1)).astype(float)
    return measured({t: list(row) for t, row in zip(TASKS, right, strict=True)}, traffic, split)


def crowned(rng: np.random.Generator, candidates: int, gain: float, prompts: int = 8) -> tuple[bool, bool]:
    """One search: (point estimates show a win on search prompts, the held-out rule names one)."""
    search, heldout = (np.clip(rng.beta(2, 1.5, size=(11, prompts)), 0, 0.85) for _ in range(2))
    seed_search = simulated(search, 0.0, rng, "search")
    found = {f"c{i}": simulated(search, gain, rng, "search") for i in range(candidates)}
    points = [Point.of("seed", seed_search), *(Point.of(name, m) for name, m in found.items())]
    best = [p.name for p in front(points) if p.name != "seed"]
    naive = any(p.accuracy > seed_search.accuracy for p in front(points))
    again = {name: simulated(heldout, gain, rng, "heldout") for name in best}
    result = standings(again, {"seed": simulated(heldout, 0.0, rng, "heldout")})
    return naive, any(s.wins_over(Outcome.MORE_ACCURATE) for s in result)


def test_front_keeps_what_nothing_dominates() -> None:
    points = [Point("dense", 0.95, 100), Point("a", 0.9, 20), Point("b", 0.8, 30), Point("c", 0.5, 10)]
    assert [p.name for p in front(points)] == ["c", "a", "dense"]
    assert dominates(points[1], points[2])
    assert not dominates(points[1], points[1])


def test_of_equal_points_the_first_stays() -> None:
    assert [p.name for p in front([Point("seed", 0.9, 20), Point("copy", 0.9, 20)])] == ["seed"]


def test_hypervolume_grows_with_the_front() -> None:
    base = [Point("dense", 1.0, 100), Point("a", 0.8, 50)]
    assert hypervolume([Point("dense", 1.0, 100)], 100) == 0.0
    assert hypervolume(base, 100) == pytest.approx(0.4)
    assert hypervolume([*base, Point("b", 0.9, 75)], 100) == pytest.approx(0.4 + 0.1 * 0.25)
    assert hypervolume([*base, Point("dominated", 0.7, 60)], 100) == pytest.approx(0.4)


def test_equal_candidates_are_not_crowned() -> None:
    """50 equal candidates with noise: some look better on the search prompts, none may be shown so."""
    rng = np.random.default_rng(11)
    outcomes = [crowned(rng, candidates=50, gain=0.0) for _ in range(120)]
    naive = sum(n for n, _ in outcomes) / len(outcomes)
    false_crowns = sum(c for _, c in outcomes) / len(outcomes)
    assert naive > 0.9  # the point estimates crown one nearly always
    assert false_crowns <= 0.05


def test_many_equal_candidates_claimed_at_once_are_not_crowned() -> None:
    """Without any selection: all 50 go to the held-out prompts, so 50 claims are made together."""
    rng = np.random.default_rng(12)
    false_crowns = 0
    for _ in range(10):
        difficulty = rng.beta(2, 1.5, size=(11, 8))
        candidates = {f"c{i}": simulated(difficulty, 0.0, rng, "heldout") for i in range(50)}
        result = standings(candidates, {"seed": simulated(difficulty, 0.0, rng, "heldout")})
        false_crowns += any(standing.is_win for standing in result)
    assert false_crowns <= 1


def test_a_better_candidate_is_crowned() -> None:
    rng = np.random.default_rng(13)
    assert sum(c for _, c in (crowned(rng, candidates=3, gain=0.25) for _ in range(40))) >= 32


def test_wins_need_heldout_prompts() -> None:
    a = measured({"x": [1.0] * 8}, split="search")
    with pytest.raises(ValueError, match="heldout"):
        standings({"a": a}, {"seed": a})


def test_equal_to_dense_is_no_win_and_says_so() -> None:
    scores = {"x": [1.0, 0.0] * 20, "y": [1.0] * 40}
    dense = measured(scores, DENSE_BYTES)
    seed = measured({"x": [1.0, 0.0] * 20, "y": [0.0] * 40}, 300.0)
    (standing,) = standings({"cheat": measured(scores, DENSE_BYTES)}, {"dense": dense, "seed": seed})
    assert not standing.is_win
    assert [c.reason for c in standing.comparisons] == [
        "costs the same, and the accuracy cannot be told apart",
        "moves more bytes",
    ]


def test_fewer_bytes_at_no_loss_is_a_win_only_with_enough_prompts() -> None:
    few, many = ({"x": [1.0] * n} for n in (10, 400))
    for scores, wins in ((few, ()), (many, ("dense",))):
        dense, cheap = measured(scores, DENSE_BYTES), measured(scores, 0.3 * DENSE_BYTES)
        (standing,) = standings({"cheap": cheap}, {"dense": dense})
        assert standing.wins_over(Outcome.CHEAPER) == wins
    worse = measured({"x": [1.0] * 320 + [0.0] * 80}, 0.3 * DENSE_BYTES)
    (standing,) = standings({"worse": worse}, {"dense": measured(many, DENSE_BYTES)})
    assert standing.comparisons[0].reason == "cheaper, but may lose 5% of accuracy or more"


def test_a_small_saving_is_no_win() -> None:
    scores = {"x": [1.0, 0.0] * 200}
    pair = {"c": measured(scores, 0.97 * 300)}, {"seed": measured(scores, 300.0)}
    assert standings(*pair)[0].comparisons[0].outcome is Outcome.NO_WIN
    assert standings(*pair, saving=0.02)[0].comparisons[0].outcome is Outcome.CHEAPER


def test_nothing_to_compare_with() -> None:
    assert standings({"a": measured({"x": [1.0] * 4})}, {})[0].wins_over() == ()
