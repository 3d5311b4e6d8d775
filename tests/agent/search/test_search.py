from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.ledger import Ledger, Role, RunStatus, Status
from agent.proposers.base import Proposal, SearchView
from agent.sandbox import Sandbox
from agent.search.progress import Progress
from agent.search.settings import SearchSettings
from agent.views.report import build_report
from benchmarks.instant import InstantProposer, InstantSettings, bench
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import Seed
from tests.agent.search.parts import Calls, Scripted, flow, proposal, search, silent, starts, without_gate

SMALL = SearchSettings(budget=6, workers=2)


def test_a_search_measures_its_budget_and_its_front_again(
    ledger: Ledger, sandbox: Sandbox, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    run = search(ledger, sandbox, InstantProposer(), SMALL, journal=journal)
    assert run.status is RunStatus.FINISHED
    tally = ledger.tally(run.id)
    assert tally.measured == 6
    assert tally.pending == 0
    rows = ledger.candidates(run.id)
    dense = rows[0]
    assert (dense.role, dense.status) == (Role.DENSE, Status.MEASURED)
    report = build_report(ledger, run, SMALL.model_dump())
    assert {row.role for row in report.references} == {Role.DENSE}
    assert report.front
    assert all(row.heldout for row in report.rows)
    assert all(row.heldout.accuracy != row.search.accuracy for row in report.front if row.heldout)
    again = {entry.key for entry in starts(journal) if entry.split == "heldout"}
    assert again == {row.hash for row in report.rows}
    measured = [row for row in rows if row.status is Status.MEASURED and row.role is Role.PROPOSED]
    for row in measured:
        found = row.evaluation("search")
        assert found is not None
        assert found.worker_pid is not None
        assert len(json.loads(found.measurement or "{}")["samples"]) == 32


def test_the_gate_and_the_rest_are_measured_once(ledger: Ledger, sandbox: Sandbox, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    search(ledger, sandbox, InstantProposer(), SMALL, journal=journal)
    jobs = [(entry.key, entry.split) for entry in starts(journal)]
    assert len(jobs) == len(set(jobs))
    prompts = {entry.split: entry.prompts for entry in starts(journal) if entry.key != "dense"}
    assert (prompts["gate"], prompts["search"]) == (8, 24)


def test_the_same_algorithm_under_other_names_costs_one_evaluation(
    ledger: Ledger, sandbox: Sandbox, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    copies = Scripted(lambda view: proposal(flow(name=f"copy_{view.index}"), topk_val=8))
    settings = SearchSettings(budget=50, workers=2, patience=49)
    run = search(ledger, sandbox, copies, settings, journal=journal)
    assert run.status is RunStatus.STOPPED
    assert "49 proposals in a row gave no new candidate" in (run.message or "")
    tally = ledger.tally(run.id)
    assert (tally.measured, tally.duplicate, tally.proposals) == (1, 49, 50)
    searched = [entry for entry in starts(journal) if entry.key != "dense" and entry.split == "search"]
    assert len(searched) == 1
    assert all(row.source for row in ledger.candidates(run.id) if row.role is Role.PROPOSED)


def test_fifty_candidates_of_equal_quality_crown_nobody(ledger: Ledger, sandbox: Sandbox) -> None:
    # Dense answers everything; the seed and all candidates move half the bytes and are equally good.
    equal = InstantSettings(prompts_per_task=6, quality=0.6, ratio=0.5)
    seed = Seed("seed", flow("seed", -1.0), Candidate(sandbox.trace(flow("seed", -1.0)), Knobs()))
    ground = replace(without_gate(bench(equal)), seeds=(seed,))
    proposer = Scripted(lambda view: proposal(flow(alpha=float(view.index))))
    settings = SearchSettings(budget=50, workers=2)
    run = search(ledger, sandbox, proposer, settings, equal, ground=ground)
    assert ledger.tally(run.id).measured == 50
    report = build_report(ledger, run, settings.model_dump())
    reference = next(row for row in report.references if row.role is Role.SEED)
    assert [row.search.accuracy.mean > reference.search.accuracy.mean for row in report.front] == [True]
    assert report.winners == ()
    assert "no win" in report.front[0].verdict


def test_a_refused_flow_is_repaired_and_both_are_kept(ledger: Ledger, sandbox: Sandbox) -> None:
    broken = flow().replace("self.product(self.mean(q, ctx=ctx)", "self.product(self.nothing(q, ctx=ctx)")
    errors: list[str] = []

    def mend(refused: Proposal, error: str) -> Proposal:
        errors.append(error)
        return Proposal(flow(), refused.knobs, "mended", "scripted", attempt=refused.attempt + 1)

    def make(view: SearchView) -> Proposal:
        return proposal(broken if view.index == 0 else flow(alpha=float(view.index)))

    run = search(ledger, sandbox, Scripted(make, mend), SearchSettings(budget=2, workers=1))
    rejected = ledger.candidates(run.id, (Status.REJECTED,))
    assert len(rejected) == 1
    assert rejected[0].source == broken
    assert "nothing" in (rejected[0].reason or "")
    assert errors == [rejected[0].reason]
    assert "mended" in [row.hypothesis for row in ledger.candidates(run.id, (Status.MEASURED,))]


def test_a_proposer_of_nothing_but_refusals_is_stopped(ledger: Ledger, sandbox: Sandbox) -> None:
    proposer = Scripted(lambda view: proposal("import os"))
    run = search(ledger, sandbox, proposer, SearchSettings(budget=3, patience=7, workers=1))
    assert run.status is RunStatus.STOPPED
    assert "7 proposals in a row" in (run.message or "")
    assert ledger.tally(run.id).rejected == 7


def test_a_proposer_that_fails_costs_its_proposals_only(ledger: Ledger, sandbox: Sandbox) -> None:
    def make(view: SearchView) -> Proposal:
        if view.index % 2 == 0:
            raise ZeroDivisionError("by zero")
        return proposal(flow(alpha=float(view.index)))

    run = search(ledger, sandbox, Scripted(make), SearchSettings(budget=2, workers=1))
    assert ledger.tally(run.id).measured == 2
    reasons = [row.reason for row in ledger.candidates(run.id, (Status.REJECTED,))]
    assert reasons
    assert set(reasons) == {"the proposer failed: ZeroDivisionError: by zero"}


def test_a_proposer_that_cannot_go_on_ends_the_search(ledger: Ledger, sandbox: Sandbox) -> None:
    run = search(ledger, sandbox, Scripted(silent("the key was refused", stop=True)), SMALL)
    assert run.status is RunStatus.STOPPED
    assert run.message == "scripted cannot go on: the key was refused"
    assert ledger.tally(run.id).rejected == 1


def test_a_bad_policy_is_refused_with_its_place(ledger: Ledger, sandbox: Sandbox) -> None:
    def make(view: SearchView) -> Proposal:
        policy = "for (;;) {} return 1;" if view.index == 0 else None
        return proposal(flow(alpha=float(view.index)), policy=policy)

    run = search(ledger, sandbox, Scripted(make), SearchSettings(budget=1, workers=1))
    (rejected,) = ledger.candidates(run.id, (Status.REJECTED,))
    assert "for" in (rejected.reason or "")


def test_workers_are_busy_while_the_proposer_thinks(ledger: Ledger, sandbox: Sandbox) -> None:
    def make(view: SearchView) -> Proposal:
        time.sleep(0.2)
        return proposal(flow(alpha=float(view.index)))

    begin: list[float] = []

    def note(progress: Progress) -> None:
        if progress.stage == "searching":
            begin.append(time.monotonic())

    slow = InstantSettings(sleep_s=0.1)  # in each of two stages: as slow as the proposer
    search(ledger, sandbox, Scripted(make), SearchSettings(budget=10, workers=1), slow, view=Calls(note))
    one_after_the_other = 10 * (0.2 + 2 * 0.1)
    assert begin[-1] - begin[0] < 0.8 * one_after_the_other


def test_a_second_run_uses_the_measurements_of_the_first(
    ledger: Ledger, sandbox: Sandbox, tmp_path: Path
) -> None:
    first = search(ledger, sandbox, InstantProposer(), SMALL)
    journal = tmp_path / "journal"
    by_index = {row.hash: row for row in ledger.candidates(first.id)}
    known = [row for row in by_index.values() if row.role is Role.PROPOSED and row.status is Status.MEASURED]

    def make(view: SearchView) -> Proposal:
        row = known[view.index % len(known)]
        return Proposal(
            row.source or "", proposal("").knobs.model_validate_json(row.knobs or ""), "", "again"
        )

    second = search(ledger, sandbox, Scripted(make), SMALL, journal=journal)
    assert ledger.tally(second.id).measured == 6
    assert {entry.key for entry in starts(journal)} <= {row.hash for row in known}
    assert {entry.split for entry in starts(journal)} <= {"heldout"}
    reused = [row.evaluation("search") for row in ledger.candidates(second.id, (Status.MEASURED,))]
    assert all(found and found.reused_from for found in reused)


def test_what_a_proposer_is_shown(ledger: Ledger, sandbox: Sandbox) -> None:
    proposer = Scripted(lambda view: proposal(flow(alpha=float(view.index)), topk_val=4 * (view.index + 1)))
    search(ledger, sandbox, proposer, SearchSettings(budget=8, workers=1))
    view = proposer.views[-1]
    assert [seen.index for seen in proposer.views] == list(range(len(proposer.views)))
    assert view.dense_accuracy == 1.0
    assert view.suggestion is not None
    assert any(known.on_front for known in view.best)
    assert view.known(view.best[0].hash)
    assert not view.known("nothing")
    assert view.recent[0].hash not in {known.hash for known in view.recent[1:]}


@pytest.mark.parametrize(
    "point", ["measuring dense attention and the seeds", "searching", "measuring the front"]
)
def test_an_interrupted_search_resumes_without_repeating(
    ledger: Ledger, sandbox: Sandbox, tmp_path: Path, point: str
) -> None:
    journal = tmp_path / "journal"
    updates = 0

    def interrupt(progress: Progress) -> None:
        nonlocal updates
        updates += progress.stage.startswith(point)
        if updates == (6 if point == "searching" else 1):
            raise KeyboardInterrupt

    run = ledger.create_run("run", SMALL.model_dump_json(), "search", bench(InstantSettings()).environment)
    with pytest.raises(KeyboardInterrupt):
        search(ledger, sandbox, InstantProposer(), SMALL, run=run, journal=journal, view=Calls(interrupt))
    assert ledger.run(run.id).status is RunStatus.INTERRUPTED
    committed = {
        (row.hash, found.split)
        for row in ledger.candidates(run.id)
        for found in row.evaluations
        if found.status == "done"
    }
    before = len(starts(journal))
    search(ledger, sandbox, InstantProposer(), SMALL, run=run, journal=journal)
    assert ledger.tally(run.id).measured == 6
    assert not committed & {(entry.key, entry.split) for entry in starts(journal)[before:]}
