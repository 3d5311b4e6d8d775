"""Every target agrees with the reference on generated cases.

`VORTEX_CASES=5000` runs more of them than the fixed sample.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from tests.vortex.targets.agreement import check_case
from tests.vortex.targets.generated import Case, cases
from vortex.targets import TARGETS

EXAMPLES = int(os.environ.get("VORTEX_CASES", "0"))
SAMPLE = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "reference"])
def test_targets_agree(target: str) -> None:
    @SAMPLE
    @given(cases())
    def judge(case: Case) -> None:
        check_case(case, target)

    judge()
