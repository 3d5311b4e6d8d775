from __future__ import annotations

import random

import pytest

from agent.study import KnobStudy
from search_spaces.knobs import Knobs, KnobSpace
from search_spaces.objectives import Objectives

SPACE = KnobSpace.for_model(layers=4, length=2048)


def study(seed: int = 0, window: int = 100) -> KnobStudy:
    return KnobStudy(SPACE, Objectives(floor=0.05), dense_accuracy=1.0, seed=seed, window=window)


def measured(knobs: Knobs) -> tuple[float, float]:
    """A made-up trade-off: more blocks answer more and move more bytes; small blocks are better."""
    tokens = knobs.topk_val * knobs.block_size
    return min(1.0, (tokens / 1024) ** 0.25 - knobs.block_size / 1000), float(tokens)


def test_suggestions_lie_in_the_space() -> None:
    asked = study()
    for _ in range(30):
        knobs = asked.suggest()
        assert SPACE.problems(knobs) == []
        asked.tell(knobs, *measured(knobs))


def test_equal_seeds_and_news_give_equal_suggestions() -> None:
    def run(seed: int) -> list[Knobs]:
        asked, found = study(seed), []
        for _ in range(15):
            found.append(asked.suggest())
            asked.tell(found[-1], *measured(found[-1]))
        return found

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_the_floor_is_a_constraint_of_the_trials() -> None:
    asked = study()
    asked.tell(Knobs(topk_val=8), 0.90, 10.0)
    asked.tell(Knobs(topk_val=16), 0.97, 20.0)
    asked.suggest()
    broken, held = (trial.constraints["accuracy floor"] for trial in asked.trials)
    assert broken == pytest.approx(0.05)
    assert held == pytest.approx(-0.02)
    assert [trial.values for trial in asked.trials] == [[0.90, 10.0], [0.97, 20.0]]


def test_suggestions_learn_where_the_front_is() -> None:
    # Only blocks of 8 hold the floor; a study that learns suggests them more often than chance, 1 in 4.
    asked = study()
    rng = random.Random(0)
    for _ in range(60):
        knobs = SPACE.sample(rng)
        good = knobs.block_size == 8
        asked.tell(knobs, 0.99 if good else 0.3, float(knobs.topk_val))
    suggested = [asked.suggest() for _ in range(30)]
    assert sum(knobs.block_size == 8 for knobs in suggested) > 15


def test_the_window_is_bounded_and_keeps_the_front() -> None:
    asked = study(window=20)
    asked.tell(Knobs(topk_val=9), 0.99, 1.0)  # dominates everything that follows
    for step in range(200):
        asked.tell(Knobs(topk_val=1 + step % 60), 0.5, 100.0 + step)
        asked.suggest()
    assert len(asked.trials) <= 20 + 1 + 32
    assert max(trial.values[0] for trial in asked.trials) == 0.99


def test_knobs_outside_the_menus_do_not_disturb_it() -> None:
    asked = study()
    asked.tell(Knobs(layers_skip=(0, 1, 2, 3)), 1.0, 1.0)
    asked.tell(Knobs(policy="return topk_val + 7;"), 1.0, 1.0)
    asked.tell(Knobs(block_size=512, topk_val=5000), 1.0, 1.0)  # cut to the nearest
    assert SPACE.problems(asked.suggest()) == []
    assert len(asked.trials) == 1
