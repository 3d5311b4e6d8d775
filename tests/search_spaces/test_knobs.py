from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from search_spaces.knobs import Knobs, KnobSpace
from search_spaces.policies import ADAPTIVE, POLICIES
from vortex.budget import DEFAULT_POLICY, parse_policy

SPACE = KnobSpace.for_model(layers=4, length=2048)


def inside(knobs: Knobs) -> bool:
    return not SPACE.problems(knobs) and knobs.policy in SPACE.policy and knobs.topk_ratio in SPACE.topk_ratio


def test_samples_lie_in_the_space_and_differ() -> None:
    rng = random.Random(0)
    drawn = [SPACE.sample(rng) for _ in range(300)]
    assert all(map(inside, drawn))
    assert len(set(drawn)) > 150
    assert {k.topk_val for k in drawn} >= {1, 32}


def test_neighbours_differ_in_one_or_two_knobs() -> None:
    rng = random.Random(1)
    knobs = SPACE.sample(rng)
    for _ in range(300):
        near = SPACE.neighbour(knobs, rng)
        changed = [name for name in Knobs.model_fields if getattr(near, name) != getattr(knobs, name)]
        assert len(changed) >= 1
        assert (
            len([name for name in changed if name != "topk_val"]) <= 2
        )  # larger blocks may need fewer of them
        assert inside(near)
        knobs = near


def test_a_space_of_one_point_has_no_neighbour_but_itself() -> None:
    space = KnobSpace(
        block_size=(16,), topk_low=4, topk_high=4, topk_ratio=(0.0,), bos=(1,), eos=(1,), policy=(None,)
    )
    rng = random.Random(0)
    assert space.neighbour(space.sample(rng), rng) == space.sample(rng)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"block_size": 24}, "power of two"),
        ({"topk_val": 0}, "topk_val"),
        ({"topk_ratio": 1.5}, "topk_ratio"),
        ({"topk_ratio": float("nan")}, "topk_ratio"),
        ({"bos": 0}, "bos"),
        ({"layers_skip": (-1,)}, "layers_skip"),
        ({"block": 16}, "block"),
    ],
)
def test_wrong_knobs_are_named(knobs: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Knobs(**knobs)  # type: ignore[arg-type]


def test_problems_name_what_lies_outside() -> None:
    outside = Knobs(block_size=128, topk_val=500, topk_ratio=0.9, layers_skip=(0, 1, 2, 3))
    text = "; ".join(SPACE.problems(outside))
    assert all(
        name in text
        for name in ("block_size 128", "topk_val 500", "topk_ratio 0.9", "layers_skip [0, 1, 2, 3]")
    )
    assert SPACE.problems(Knobs(policy="return 7;", topk_val=8)) == []


def test_spaces_that_cannot_be_drawn_from() -> None:
    with pytest.raises(ValidationError, match="block_size is empty"):
        KnobSpace(block_size=())
    with pytest.raises(ValidationError, match="low <= high"):
        KnobSpace(topk_low=9, topk_high=8)


def test_the_policies_of_the_space_are_in_the_checked_subset() -> None:
    for text in POLICIES.values():
        assert not parse_policy(text).is_default
    assert parse_policy(ADAPTIVE).evaluate(640, 30, 0.0, 1, 1) == 42
    assert parse_policy(ADAPTIVE).evaluate(10**6, 30, 0.0, 1, 1) == 256
    assert parse_policy(DEFAULT_POLICY).is_default
