"""Forty candidates, half of which misbehave: while they are traced, or in the workers that measure them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from agent.ledger import Ledger, Status
from agent.proposers.base import Proposal, SearchView
from agent.sandbox import Sandbox
from agent.sandbox.limits import Limits
from agent.search.settings import SearchSettings
from benchmarks.instant import InstantSettings
from evaluators.executor import EvaluatorSpec
from evaluators.executor import Limits as WorkerLimits
from tests.agent.search.hostile import CRASH, HANG, MEMORY
from tests.agent.search.parts import Scripted, flow, proposal, search

LOOP = flow().replace("super().__init__()", "super().__init__()\n        while True:\n            pass")
BOOM = flow().replace("super().__init__()", "super().__init__()\n        x = 1 // 0")
HOG = flow().replace(
    "super().__init__()",
    "super().__init__()\n        x = [0]\n        for _ in range(60):\n            x = x + x",
)
HOSTILE = [LOOP] * 8 + [BOOM] * 8 + [HOG] * 4
IN_WORKERS = [HANG, CRASH, MEMORY]


def _forty(view: SearchView) -> Proposal:
    """Hostile and healthy candidates in turn; three of the healthy sources misbehave in their worker."""
    position = view.index
    if position % 2 == 0:
        return proposal(HOSTILE[position // 2 % len(HOSTILE)] + f"# {position}\n")
    healthy = position // 2
    topk_val = IN_WORKERS[healthy // 6] if healthy in (3, 9, 15) else 8
    return proposal(flow(alpha=float(position)), topk_val=topk_val)


@pytest.fixture
def impatient() -> Iterator[Sandbox]:
    with Sandbox(replace(Limits(), cpu_s=0.3)) as warm:
        yield warm


def test_hostile_candidates_cost_only_themselves(ledger: Ledger, impatient: Sandbox) -> None:
    children = set(psutil.Process().children(recursive=True))
    settings = SearchSettings(budget=40, workers=2, repairs=0, max_proposals=40, timeout=1.0)
    run = search(
        ledger,
        impatient,
        Scripted(_forty),
        settings,
        evaluator=EvaluatorSpec(
            factory="tests.agent.search.hostile:open_evaluator", settings=InstantSettings().model_dump_json()
        ),
        limits=WorkerLimits(memory_bytes=1 << 30),
    )
    tally = ledger.tally(run.id)
    assert (tally.rejected, tally.failed, tally.pending) == (20, 3, 0)
    assert tally.measured + tally.pruned == 17
    reasons = sorted((row.reason or "").lower() for row in ledger.candidates(run.id, (Status.FAILED,)))
    assert any("killed" in reason or "abort" in reason for reason in reasons)
    assert any("memory" in reason for reason in reasons)
    assert any("longer than" in reason or "within" in reason or "1 s" in reason for reason in reasons)
    assert all(row.reason for row in ledger.candidates(run.id, (Status.REJECTED,)))
    left = [process for process in psutil.Process().children(recursive=True) if process not in children]
    assert [
        process for process in left if process.is_running() and "worker" in " ".join(process.cmdline())
    ] == []
