"""What "best" means, on made-up scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.export.choose import choose
from agent.export.report import ExportError
from agent.ledger import Ledger, Role
from evaluators.measure import Measurement, SampleResult
from evaluators.measure.measurement import Split, measurement_of
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_graphs
from tests.agent.export.conftest import Finished, new_run

DENSE = 1000.0


def scored(accuracy: float, traffic: float, split: Split) -> Measurement:
    samples = [
        SampleResult(
            task="niah_single_1",
            prompt=i,
            score=float(i < 20 * accuracy),
            bytes=traffic,
            dense_bytes=DENSE,
            new_tokens=4,
            prediction="",
        )
        for i in range(20)
    ]
    return measurement_of(
        samples, split=split, workload=split, model="m", engine="e", device="cpu", length=512, seconds=1.0
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Finished]:
    with Ledger(tmp_path / "ledger.db") as ledger:
        made = new_run(ledger, tmp_path, tmp_path / "cache")
        made.add("dense", None, Role.DENSE, scored(1.0, DENSE, "search"), scored(1.0, DENSE, "heldout"))
        yield made


def add(run: Finished, name: str, topk: int, search: float, heldout: float | None, traffic: float) -> None:
    candidate = Candidate(seed_graphs()["block_sparse_attention"], Knobs(topk_val=topk))
    found = [scored(search, traffic, "search")]
    if heldout is not None:
        found.append(scored(heldout, traffic, "heldout"))
    run.add(name, candidate, Role.SEED if name == "seed" else Role.PROPOSED, *found)


def best(run: Finished, floor: float = 0.05) -> tuple[str, str]:
    chosen = choose(run.ledger, run.run, "best", floor)
    return chosen.row.name, chosen.why


def test_fewest_bytes_within_the_floor_on_heldout_prompts(run: Finished) -> None:
    add(run, "seed", 40, 1.0, 1.0, 400.0)
    add(run, "lucky", 10, 1.0, 0.7, 100.0)
    add(run, "good", 20, 1.0, 0.95, 200.0)
    add(run, "good, but off the front", 21, 0.95, 1.0, 250.0)
    assert best(run)[0] == "seed"  # "lucky" dominates both on the search prompts, and loses on held-out ones
    add(run, "better", 22, 1.0, 0.95, 90.0)
    name, why = best(run)
    assert name == "better"
    assert "at most 5 points below dense" in why


def test_a_seed_may_be_the_best(run: Finished) -> None:
    add(run, "seed", 40, 1.0, 1.0, 400.0)
    add(run, "weak", 10, 0.5, 0.5, 100.0)
    assert best(run)[0] == "seed"


def test_where_none_is_within_the_floor_the_record_says_so(run: Finished) -> None:
    add(run, "near", 40, 0.9, 0.9, 400.0)
    add(run, "far", 10, 0.5, 0.5, 100.0)
    name, why = best(run)
    assert name == "near"
    assert "10.0 points below dense, and none is within 5" in why


def test_what_costs_as_much_as_dense_is_never_the_best(run: Finished) -> None:
    add(run, "everything", 500, 1.0, 1.0, DENSE)
    with pytest.raises(ExportError, match="no candidate that moves fewer bytes"):
        best(run)


def test_an_unfinished_run_has_no_best(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        run = new_run(ledger, tmp_path, tmp_path / "cache")
        run.add("dense", None, Role.DENSE, scored(1.0, DENSE, "search"))
        add(run, "good", 20, 1.0, None, 200.0)
        with pytest.raises(ExportError, match="--resume tried"):
            best(run)
        found = choose(ledger, run.run, run.candidates["good"].hash[:8], 0.05)
        assert found.result.split == "search"
        assert found.dense is not None
        assert found.dense.split == "search"


def test_hashes(run: Finished) -> None:
    add(run, "good", 20, 1.0, 1.0, 200.0)
    full = run.candidates["good"].hash
    assert choose(run.ledger, run.run, full, 0.05).row.name == "good"
    for wrong in (full[:3], "ffffffffffff0000", "dens", "dense"):
        with pytest.raises(ExportError, match="no measured candidate"):
            choose(run.ledger, run.run, wrong, 0.05)
