"""Every target agrees with the reference on generated cases.

A fixed sample, and some cases that hypothesis draws and makes small where they fail: as many as
`VORTEX_CASES` says. `VORTEX_DEVICE=cuda` runs the targets there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings

import vortex.targets.torch
from tests.vortex.targets.agreement import DEVICE, SLOW, Verdict, check_case
from tests.vortex.targets.census import EXPECTED, covering, found_in
from tests.vortex.targets.generated import Case, cases, fixed_cases
from vortex.targets import TARGETS

OTHERS = [name for name in TARGETS if name != "reference"]
ALL = [pytest.param(name, marks=pytest.mark.full if name in SLOW else ()) for name in OTHERS]
SAMPLE, PARTS = 400, 4
MORE = int(os.environ.get("VORTEX_CASES", "0"))


def judge_all(target: str, sample: Sequence[Case]) -> None:
    total = Verdict()
    for case in sample:
        try:
            total.add(check_case(case, target, DEVICE))
        except Exception as error:
            error.add_note(f"in {case}")
            raise
    # The comparison notices something: most tolerances are narrow, and little is left open.
    assert total.narrow > 0.9 * total.scores
    assert total.unsettled < 0.01 * total.scores
    assert total.ties > 0


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", ALL)
def test_targets_agree(target: str, part: int) -> None:
    judge_all(target, list(fixed_cases(SAMPLE))[part::PARTS])


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", sorted(SLOW & TARGETS.keys()))
def test_slow_targets_agree_on_a_sample(target: str, part: int) -> None:
    """It has every op, size and format; `test_targets.py` has every flow."""
    judge_all(target, list(covering(fixed_cases(SAMPLE)))[part::PARTS])


def test_the_sample_has_everything() -> None:
    found = Counter(item for case in fixed_cases(SAMPLE) for item in found_in(case))
    assert EXPECTED - found.keys() == set()


def test_rows_scored_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch target scores as many rows together as fit its cache, here one."""
    monkeypatch.setattr(vortex.targets.torch, "CHUNK_BYTES", {"cpu": 1, "cuda": 1})
    for case in list(fixed_cases(SAMPLE))[::8]:
        check_case(case, "torch", DEVICE)


@pytest.mark.parametrize("target", ALL)
def test_more_cases(target: str) -> None:
    @settings(
        max_examples=MORE or 40,
        derandomize=not MORE,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def judge(case: Case) -> None:
        check_case(case, target, DEVICE)

    judge()
