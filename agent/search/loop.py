"""The loop of the search: read `Loop.run` first.

proposer -> sandbox -> duplicate? -> gate -> all prompts -> ledger -> study -> proposer
"""

from __future__ import annotations

from agent.ledger import Ledger, Status
from agent.proposers.base import NoProposalError, Proposal, Proposer
from agent.search.board import Board
from agent.search.check import Checked, Checker
from agent.search.flight import Flight, Landed, Passenger
from agent.search.intake import Accepted, Intake
from agent.search.outlook import Outlook
from agent.search.progress import Progress, View
from agent.search.settings import SearchSettings
from agent.search.thinker import Thinker
from agent.study import KnobStudy

_POLL = 0.02  # a thought or an outcome, whichever comes first
_LAST_WORDS = 10.0  # for an LLM that is answering when the budget is spent
_FAILURES = 20  # in a row: it is not the candidates
_IDLE = 0.25  # nothing to do but to refresh the view


class Loop:
    """Keeps the workers busy until the budget is spent, or gives up with `stopped` set to the reason."""

    def __init__(
        self,
        ledger: Ledger,
        run_id: int,
        settings: SearchSettings,
        proposer: Proposer,
        checker: Checker,
        intake: Intake,
        flight: Flight,
        board: Board,
        outlook: Outlook,
        study: KnobStudy,
        progress: Progress,
        view: View,
    ) -> None:
        self.stopped: str | None = None
        self._ledger = ledger
        self._run_id = run_id
        self._settings = settings
        self._proposer = proposer
        self._thinker = Thinker(proposer, checker)
        self._intake = intake
        self._flight = flight
        self._board = board
        self._outlook = outlook
        self._study = study
        self._progress = progress
        self._view = view
        self._idea: Checked | None = None  # to be recorded as soon as there is room for it
        self._next: Checked | None = None  # thought of ahead
        self._refusal: tuple[Proposal, str] | None = None  # to be repaired by its author
        self._fruitless = 0
        self._failures = 0  # evaluations in a row

    def run(self, waiting: list[Passenger]) -> None:
        """`waiting`: candidates that an earlier process accepted and did not finish."""
        try:
            for passenger in waiting:
                self._land(self._flight.board_candidate(passenger))
            while len(self._flight) or self._may_propose():
                self._think()
                self._listen()
                self._think()  # of the one after, while this one is recorded
                self._try_idea()
                for landed in self._flight.wait(0.0 if self._has_room() else _IDLE):
                    self._land(landed)
                self._show()
            self._keep_leftovers()
        finally:
            self._thinker.close()

    def _think(self) -> None:
        """Have the proposer think ahead, so that there is an idea when there is room for it."""
        if self._thinker.busy or not self._may_propose():
            return
        if self._refusal is not None:
            self._thinker.repair(*self._refusal)
            self._refusal = None
        elif self._next is None:
            ahead = 1 if self._idea is not None else 0
            view = self._outlook.view(self._progress.proposals + ahead, self._proposer.name)
            self._thinker.propose(view, self._study.suggest)

    def _listen(self) -> None:
        """Take what the proposer has thought of, if it has."""
        if self._thinker.busy and self._next is None:
            hungry = self._idea is None and self._has_room()
            thought = self._thinker.take(_POLL if hungry else 0.0)
            if isinstance(thought, Checked):
                self._next = thought
            elif isinstance(thought, NoProposalError):
                self._note_silence(thought)
        if self._idea is None:
            self._idea, self._next = self._next, None

    def _try_idea(self) -> None:
        """Record an idea and send it off; let its author repair one that was refused."""
        if self._idea is None or not self._has_room():
            return
        idea, self._idea = self._idea, None
        proposal, admitted = idea.proposal, self._intake.admit(idea)
        self._count_spend(len(proposal.calls))
        if isinstance(admitted, Accepted):
            passenger = Passenger.of(admitted)
            graph_hash = admitted.candidate.graph.hash
            self._outlook.accepted(passenger.hash, graph_hash, passenger.proposer, passenger.parents)
            self._progress.tally[Status.PENDING] += 1
            self._fruitless = 0
            self._check_limits()
            self._land(self._flight.board_candidate(passenger))
            return
        self._refused(Status.REJECTED if admitted.repairable else Status.DUPLICATE, admitted.reason)
        if admitted.repairable:
            self._outlook.failed(proposal.proposer, proposal.source, admitted.reason)
            if proposal.attempt < self._settings.repairs:
                self._refusal = (proposal, admitted.reason)

    def _keep_leftovers(self) -> None:
        """What was thought ahead and is not needed: what it cost is recorded, and the thought with it."""
        last = self._thinker.take(_LAST_WORDS) if self._thinker.busy else None
        if isinstance(last, NoProposalError):
            self._intake.note_silence(last, self._proposer.name)
        for idea in (self._idea, self._next, last):
            if isinstance(idea, Checked) and idea.proposal.calls:
                self._intake.leave(idea, "thought of ahead: the budget was spent before its turn")
        self._progress.spend = self._ledger.spend(self._run_id)

    def _note_silence(self, error: NoProposalError) -> None:
        self._intake.note_silence(error, self._proposer.name)
        self._count_spend(len(error.calls))
        self._outlook.failed(self._proposer.name, error.answer, error.reason)
        self._refused(Status.REJECTED, error.reason)
        if error.stop:
            self.stopped = f"{self._proposer.name} cannot go on: {error.reason}"

    def _land(self, landed: Landed | None) -> None:
        """A candidate has its final status: the board and the study learn from it."""
        if landed is None:
            return
        self._progress.tally[Status.PENDING] -= 1
        self._progress.tally[landed.status] += 1
        passenger, measured = landed.passenger, landed.measurement
        self._failures = self._failures + 1 if landed.status is Status.FAILED else 0
        if landed.status is Status.FAILED:
            lines = (landed.reason or "no reason given").strip().splitlines()
            self._progress.last_reason = lines[-1]
            if self._failures >= _FAILURES:
                self.stopped = f"{self._failures} evaluations in a row failed (the last: {lines[-1]})"
        if measured is None or passenger.candidate is None:
            self._outlook.failed(passenger.proposer, passenger.source, landed.reason or "")
            return
        if landed.status is Status.MEASURED:
            self._board.add(passenger.measured(measured))
        elif landed.status is Status.PRUNED:
            self._board.add_stopped(passenger.measured(measured))
        self._study.tell(passenger.candidate.knobs, measured.accuracy, measured.bytes_per_step)

    def _count_spend(self, calls: int) -> None:
        if calls:
            self._progress.spend = self._ledger.spend(self._run_id)

    def _refused(self, status: Status, reason: str) -> None:
        self._progress.tally[status] += 1
        self._progress.last_reason = reason
        self._fruitless += 1
        self._check_limits()

    def _check_limits(self) -> None:
        """Give up on a proposer whose proposals lead nowhere."""
        limit, reason = self._settings.proposal_limit, self._progress.last_reason or "none"
        if self._fruitless >= self._settings.patience:
            self.stopped = (
                f"{self._fruitless} proposals in a row gave no new candidate (the last: {reason}); "
                "try another proposer, or a larger --patience"
            )
        elif self._progress.proposals >= limit:
            self.stopped = (
                f"{limit} proposals gave {self._progress.measured} of {self._progress.budget} measured "
                f"candidates (the last refusal: {reason}); try another proposer, or a larger --max-proposals"
            )

    def _may_propose(self) -> bool:
        """Whether one more candidate would still count."""
        return not self.stopped and self._progress.measured + len(self._flight) < self._progress.budget

    def _has_room(self) -> bool:
        # One more than there are workers: a worker that is done finds the next job waiting.
        return self._may_propose() and len(self._flight) <= self._progress.workers

    def _show(self) -> None:
        self._progress.in_flight = len(self._flight)
        self._progress.gating = self._flight.gating
        self._view.update(self._progress)
