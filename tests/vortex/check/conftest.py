from __future__ import annotations

import pytest

from tests.vortex.check.sources import GOOD


@pytest.fixture(scope="session")
def good() -> str:
    return GOOD
