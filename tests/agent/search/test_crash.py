from __future__ import annotations

from pathlib import Path

from benchmarks.crash import torture


def test_a_killed_search_resumes_with_nothing_lost_and_nothing_repeated(tmp_path: Path) -> None:
    tally = torture(kills=3, budget=12, folder=tmp_path, seed=1)
    assert tally.faults == []
    assert (tally.driver_kills, tally.worker_kills) == (2, 1)
    assert tally.measured == 12 * tally.runs
