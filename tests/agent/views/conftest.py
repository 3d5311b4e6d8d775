from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # benchmarks and tests, for worker processes too

from agent.ledger import Ledger
from agent.sandbox import Sandbox
from agent.search.settings import SearchSettings
from agent.views.report import Report, build_report
from benchmarks.instant import InstantProposer, InstantSettings
from tests.agent.search.parts import search

SETTINGS = SearchSettings(budget=12, workers=2)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with one finished run of instant evaluations."""
    path = tmp_path_factory.mktemp("finished") / "ledger.db"
    with Ledger(path) as ledger, Sandbox() as sandbox:
        pretended = InstantSettings(prompts_per_task=12)
        search(ledger, sandbox, InstantProposer(), SETTINGS, pretended)
        yield ledger


@pytest.fixture(scope="session")
def report(finished: Ledger) -> Report:
    return build_report(finished, finished.find_run("last"), SETTINGS.model_dump(mode="json"))
