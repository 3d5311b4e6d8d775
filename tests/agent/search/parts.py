"""What the tests of the search share: one way to run one, and proposers with a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from agent.ledger import Ledger, RunRecord
from agent.proposers.base import NoProposalError, Proposal, Proposer, SearchView
from agent.sandbox import Sandbox
from agent.search.bench import Bench
from agent.search.progress import Progress, View
from agent.search.session import run_search
from agent.search.settings import SearchSettings
from benchmarks.instant import FLOW, InstantSettings, bench, spec
from evaluators.executor import EvaluatorSpec, Journal, JournalEntry, Limits, LocalExecutor
from search_spaces.knobs import Knobs


class Scripted:
    """Proposes what a function of the view's index gives; repairs by another."""

    name = "scripted"

    def __init__(
        self,
        make: Callable[[SearchView], Proposal],
        mend: Callable[[Proposal, str], Proposal | None] = lambda _proposal, _error: None,
    ) -> None:
        self.make = make
        self.mend = mend
        self.views: list[SearchView] = []

    def propose(self, view: SearchView) -> Proposal:
        self.views.append(view)
        return self.make(view)

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        return self.mend(proposal, error)


class Calls:
    """A view that calls a function on every update."""

    def __init__(self, function: Callable[[Progress], None]) -> None:
        self.function = function
        self.notices: list[str] = []

    def start(self, progress: Progress) -> None: ...

    def update(self, progress: Progress) -> None:
        self.function(progress)

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def stop(self) -> None: ...


def flow(name: str = "flow", alpha: float = 0.0) -> str:
    return FLOW.format(name=name, alpha=alpha)


def proposal(source: str, by: str = "scripted", **knobs: object) -> Proposal:
    return Proposal(source, Knobs.model_validate(knobs), "a guess", by)


def search(
    ledger: Ledger,
    sandbox: Sandbox,
    proposer: Proposer,
    settings: SearchSettings,
    pretended: InstantSettings | None = None,
    *,
    run: RunRecord | None = None,
    journal: Path | None = None,
    view: View | None = None,
    evaluator: EvaluatorSpec | None = None,
    limits: Limits | None = None,
    ground: Bench | None = None,
) -> RunRecord:
    """Run a search with instant evaluations in two worker processes, and return its run as it ended."""
    pretended = pretended or InstantSettings()
    ground = ground or bench(pretended)
    if run is None:
        name = f"run-{len(ledger.runs()) + 1}"
        run = ledger.create_run(name, settings.model_dump_json(), ground.workload, ground.environment)
    placed = LocalExecutor(
        evaluator or spec(pretended), workers=settings.workers or 2, journal=journal, limits=limits
    )
    with placed as executor:
        run_search(ledger, run, settings, ground, proposer, sandbox, executor, view)
    return ledger.run(run.id)


def starts(journal: Path) -> list[JournalEntry]:
    return [entry for entry in Journal(journal).read() if entry.event == "start"]


def without_gate(ground: Bench) -> Bench:
    return replace(ground, gate=(), rest=ground.prompts)


def silent(reason: str, stop: bool) -> Callable[[SearchView], Proposal]:
    def make(_view: SearchView) -> Proposal:
        raise NoProposalError(reason, stop=stop)

    return make


def counter() -> Iterator[int]:
    value = 0
    while True:
        yield value
        value += 1
