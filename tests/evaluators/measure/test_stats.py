from __future__ import annotations

import time

import numpy as np
import pytest

from evaluators.measure import combine
from evaluators.measure.stats import (
    Interval,
    difference_interval,
    holm,
    interval,
    non_inferior,
    paired_bytes_ratio,
    paired_difference,
    ratio_interval,
    score_interval,
    sign_flip_p,
    superior,
)
from tests.evaluators.measure.records import measured

TASKS = [f"t{i % 11}" for i in range(88)]


def coverage(draw_truth: float, tasks: list[str], trials: int, seed: int) -> float:
    """Share of intervals that hold the true mean difference, for pairs whose discordance is 20%."""
    rng = np.random.default_rng(seed)
    worse = 0.1 - draw_truth / 2
    inside = 0
    for _ in range(trials):
        u = rng.random(len(tasks))
        differences = np.where(u < worse, -1.0, np.where(u > 1 - (worse + draw_truth), 1.0, 0.0))
        found = difference_interval(tasks, differences, resamples=2000)
        inside += found.low <= draw_truth <= found.high
    return inside / trials


@pytest.mark.parametrize("truth", [0.0, 0.08])
def test_interval_covers_the_truth_at_its_level(truth: float) -> None:
    assert 0.925 <= coverage(truth, TASKS, trials=600, seed=3) <= 0.985


def test_interval_covers_with_few_prompts_a_task() -> None:
    assert coverage(0.05, ["a"] * 4 + ["b"] * 4 + ["c"] * 4, trials=600, seed=5) >= 0.925


def test_mean_is_over_tasks_not_over_prompts() -> None:
    tasks = ["many"] * 9 + ["few"]
    found = score_interval(tasks, np.array([1.0] * 9 + [0.0]))
    assert found.mean == pytest.approx(0.5)


def test_all_equal_pairs_leave_room_for_what_was_not_seen() -> None:
    few = difference_interval(["a"] * 8, np.zeros(8))
    many = difference_interval(["a"] * 800, np.zeros(800))
    assert few.mean == 0.0
    assert few.low < -0.15
    assert few.high > 0.15
    assert -0.01 < many.low < 0.0 < many.high < 0.01
    assert not non_inferior(few, 0.05)
    assert non_inferior(many, 0.05)
    assert not superior(few)


def test_perfect_scores_do_not_give_certainty() -> None:
    found = score_interval(["a"] * 16, np.ones(16))
    assert found.mean == found.high == 1.0
    assert 0.75 < found.low < 0.95


def test_one_prompt_says_little() -> None:
    found = difference_interval(["a"], np.array([0.2]))
    assert found.high - found.low > 1.0


def test_tasks_of_one_prompt_have_variance_together() -> None:
    singles = difference_interval(["a", "b", "c", "d"], np.array([1.0, -1.0, 1.0, -1.0]))
    equal = difference_interval(["a", "b", "c", "d"], np.zeros(4))
    assert singles.high - singles.low > 1.3 * (equal.high - equal.low)


def test_same_seed_same_interval_and_stricter_level_is_wider() -> None:
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=88)
    assert difference_interval(TASKS, differences) == difference_interval(TASKS, differences)
    strict = difference_interval(TASKS, differences, level=0.999)
    usual = difference_interval(TASKS, differences)
    assert strict.low < usual.low < usual.mean < usual.high < strict.high
    with pytest.raises(ValueError, match="between 0 and 1"):
        difference_interval(TASKS, differences, level=95)


def test_ratio_of_bytes() -> None:
    dense = np.linspace(1000, 1100, 88)
    found = ratio_interval(TASKS, dense * 0.25, dense)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    noisy = ratio_interval(TASKS, dense * np.random.default_rng(0).uniform(0.2, 0.3, 88), dense)
    assert 0.2 < noisy.low < noisy.mean < noisy.high < 0.3


def test_ten_thousand_resamples_are_fast() -> None:
    rng = np.random.default_rng(0)
    difference_interval(TASKS, rng.random(88))
    begin = time.perf_counter()
    for _ in range(10):
        difference_interval(TASKS, rng.random(88))
    assert (time.perf_counter() - begin) / 10 < 0.05


def test_sign_flip_is_exact() -> None:
    assert sign_flip_p(["a"] * 5, np.zeros(5)) == 1.0
    assert sign_flip_p(["a"] * 5, np.ones(5)) == pytest.approx(1 / 32, abs=0.006)
    assert sign_flip_p(["a"] * 5, -np.ones(5)) == pytest.approx(1.0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_measurements_are_paired_by_prompt() -> None:
    a = measured({"x": [1, 1, 0, 1], "y": [1, 0, 1, 1]}, traffic=250.0)
    b = measured({"x": [1, 0, 0, 1], "y": [1, 0, 0, 1]}, traffic=500.0)
    shuffled = b.model_copy(update={"samples": b.samples[::-1]})
    assert paired_difference(a, b).mean == pytest.approx(0.25)
    assert paired_difference(a, shuffled) == paired_difference(a, b)
    assert paired_bytes_ratio(a, b).mean == pytest.approx(0.5)
    assert interval(a).mean == a.accuracy == pytest.approx(0.75)


def test_measurements_of_other_prompts_are_refused() -> None:
    a = measured({"x": [1, 1, 0]})
    with pytest.raises(ValueError, match="in one measurement only"):
        paired_difference(a, measured({"x": [1, 1]}))
    with pytest.raises(ValueError, match="different workloads"):
        paired_difference(a, measured({"x": [1, 1, 0]}, workload="other"))


def test_gate_and_rest_make_the_whole() -> None:
    whole = measured({"x": [1, 0, 1, 1], "y": [0.5, 1, 1, 0]}, split="search")
    gate = whole.restrict([key for key in whole.keys if key.prompt < 2], split="gate")
    rest = whole.restrict([key for key in whole.keys if key.prompt >= 2])
    assert gate.accuracy == pytest.approx(0.625)
    assert combine(gate, rest).accuracy == pytest.approx(whole.accuracy)
    assert set(combine(gate, rest).samples) == set(whole.samples)
    with pytest.raises(ValueError, match="twice"):
        combine(gate, whole)


def test_helpers() -> None:
    assert superior(Interval(mean=0.1, low=0.01, high=0.2, level=0.95))
    assert not Interval(mean=0.1, low=-0.01, high=0.2, level=0.95).excludes_zero()
    with pytest.raises(ValueError, match="margin"):
        non_inferior(Interval(mean=0, low=0, high=0, level=0.95), 0.0)
