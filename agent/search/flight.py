"""Candidates between acceptance and result: jobs out, outcomes in, every stage committed to the ledger."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.ledger import CandidateRecord, EvaluationRecord, Ledger, Role, Status
from agent.search import cascade
from agent.search.bench import Bench, Split
from agent.search.board import Board, Entrant
from agent.search.intake import Accepted
from evaluators.executor import Executor, Job, Outcome
from evaluators.measure import Measurement, combine
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from vortex.graph.model import FlowGraph


@dataclass(frozen=True)
class Passenger:
    """A candidate on its way; `candidate` None is dense attention, `gate` is set once it is committed."""

    id: int
    hash: str
    name: str
    role: Role
    candidate: Candidate | None = None
    source: str = ""
    hypothesis: str = ""
    proposer: str = "reference"
    parents: tuple[str, ...] = ()
    gate: Measurement | None = None

    @classmethod
    def of(cls, accepted: Accepted, role: Role = Role.PROPOSED) -> Passenger:
        proposal, candidate = accepted.proposal, accepted.candidate
        return cls(
            accepted.id,
            candidate.hash,
            accepted.name,
            role,
            candidate,
            proposal.source,
            proposal.hypothesis,
            proposal.proposer,
            proposal.parents,
        )

    def measured(self, measurement: Measurement) -> Entrant:
        return Entrant(
            self.id,
            self.name,
            self.role,
            self.hash,
            measurement,
            self.candidate,
            self.source,
            self.hypothesis,
            self.proposer,
            self.parents,
        )


@dataclass(frozen=True)
class Landed:
    """A candidate's final status. `measurement`: of all search prompts, or the gate's when pruned."""

    passenger: Passenger
    status: Status
    measurement: Measurement | None = None
    reason: str | None = None


class Flight:
    """The candidates in flight of one run. Nothing with a committed result is submitted."""

    def __init__(
        self, ledger: Ledger, executor: Executor, bench: Bench, board: Board, timeout: float
    ) -> None:
        self._ledger = ledger
        self._executor = executor
        self._bench = bench
        self._board = board
        self._timeout = timeout
        self._aboard: dict[str, Passenger] = {}
        self._others = len(ledger.runs()) > 1  # without other runs there is nothing to use again

    def __len__(self) -> int:
        return len(self._aboard)

    @property
    def gating(self) -> int:
        """How many are in the first stage."""
        return sum(1 for p in self._aboard.values() if p.gate is None and p.role is Role.PROPOSED)

    def board_candidate(self, passenger: Passenger) -> Landed | None:
        """Send a candidate off; it lands at once when its result is known from another run of this ledger."""
        known = self._reused(passenger, "search", Status.MEASURED)
        if known is not None:
            return Landed(passenger, Status.MEASURED, known)
        if passenger.role is not Role.PROPOSED or not self._bench.gate:
            self._submit(passenger, "search", self._bench.prompts)
            return None
        gate = passenger.gate or self._reused(passenger, "gate")
        if gate is None:
            self._submit(passenger, "gate", self._bench.gate)
            return None
        return self._after_gate(passenger, gate, None)

    def wait(self, timeout: float) -> list[Landed]:
        """Outcomes within `timeout` seconds, as far as they end a candidate's flight."""
        landed = [self._arrived(outcome) for outcome in self._executor.wait(timeout)]
        return [one for one in landed if one is not None]

    def _submit(self, passenger: Passenger, split: Split, prompts: tuple[int, ...] | None) -> None:
        self._aboard[passenger.hash] = passenger
        self._executor.submit(job(passenger.hash, passenger.candidate, split, prompts, self._timeout))

    def _arrived(self, outcome: Outcome) -> Landed | None:
        passenger = self._aboard.pop(outcome.job.key)
        if outcome.measurement is None:
            reason = outcome.reason or "the evaluation failed"
            evaluation = record(outcome, self._bench)
            self._ledger.record(
                passenger.id, evaluation, Status.FAILED, reason, environment=self._bench.environment
            )
            return Landed(passenger, Status.FAILED, reason=reason)
        if outcome.job.split == "gate":
            return self._after_gate(passenger, outcome.measurement, outcome)
        whole = (
            outcome.measurement if passenger.gate is None else combine(passenger.gate, outcome.measurement)
        )
        return self._finish(passenger, whole, outcome)

    def _after_gate(self, passenger: Passenger, gate: Measurement, outcome: Outcome | None) -> Landed | None:
        reason = cascade.hopeless(gate, self._board)
        status = Status.PRUNED if reason else None
        if outcome is not None:
            self._commit(passenger, record(outcome, self._bench), status, reason)
        elif status is not None:
            self._ledger.settle(passenger.id, status, reason)
        if status is not None:
            return Landed(passenger, status, gate, reason)
        self._submit(with_gate(passenger, gate), "search", self._bench.rest)
        return None

    def _finish(self, passenger: Passenger, whole: Measurement, outcome: Outcome) -> Landed:
        self._commit(passenger, record(outcome, self._bench, whole), Status.MEASURED)
        return Landed(passenger, Status.MEASURED, whole)

    def _commit(
        self,
        passenger: Passenger,
        evaluation: EvaluationRecord,
        status: Status | None,
        reason: str | None = None,
    ) -> None:
        self._ledger.record(passenger.id, evaluation, status, reason, environment=self._bench.environment)

    def _reused(self, passenger: Passenger, split: Split, status: Status | None = None) -> Measurement | None:
        if not self._others:
            return None
        return reuse(self._ledger, self._bench, passenger.id, passenger.hash, split, status)


def reuse(
    ledger: Ledger, bench: Bench, candidate_id: int, key: str, split: Split, status: Status | None = None
) -> Measurement | None:
    """The measurement that another run of this ledger made of the same candidate, prompts and environment.

    It is committed for this candidate too, with its `status`; None when there is no such measurement.
    """
    found = ledger.reusable(key, split, bench.workload_of(split), bench.environment)
    if found is None:
        return None
    evaluation_id, evaluation = found
    if evaluation.measurement is None:
        return None
    copy = evaluation.model_copy(update={"reused_from": evaluation_id, "seconds": 0.0, "worker_pid": None})
    ledger.record(candidate_id, copy, status, environment=bench.environment)
    return Measurement.model_validate_json(evaluation.measurement)


def job(
    key: str, candidate: Candidate | None, split: Split, prompts: tuple[int, ...] | None, timeout: float
) -> Job:
    """The evaluation of a candidate as data for a worker."""
    if candidate is None:
        return Job(key=key, split=split, prompts=prompts, timeout=timeout)
    return Job(
        key=key,
        split=split,
        graph=candidate.graph.canonical().to_json(),
        config=candidate.config().model_dump_json(),
        prompts=prompts,
        timeout=timeout,
    )


def record(outcome: Outcome, bench: Bench, whole: Measurement | None = None) -> EvaluationRecord:
    """An outcome as the ledger keeps it; `whole` replaces a measurement of the last stage's prompts alone."""
    measurement = whole or outcome.measurement
    return EvaluationRecord(
        split=outcome.job.split,
        workload=bench.workload_of(outcome.job.split),
        status=outcome.status,
        reason=outcome.reason,
        accuracy=measurement.accuracy if measurement else None,
        bytes_per_step=measurement.bytes_per_step if measurement else None,
        dense_bytes_per_step=measurement.dense_bytes_per_step if measurement else None,
        measurement=measurement.model_dump_json() if measurement else None,
        worker_pid=outcome.worker_pid,
        attempts=outcome.attempts,
        seconds=outcome.seconds,
    )


def restored(row: CandidateRecord) -> Passenger:
    """A candidate as the ledger remembers it, ready to fly on after its last committed stage."""
    candidate = None
    if row.graph is not None and row.knobs is not None:
        candidate = Candidate(FlowGraph.from_json(row.graph), Knobs.model_validate_json(row.knobs))
    assert row.hash is not None
    return Passenger(
        row.id,
        row.hash,
        row.name,
        row.role,
        candidate,
        row.source or "",
        row.hypothesis or "",
        row.proposer,
        row.parents,
        measurement_of(row, "gate"),
    )


def measurement_of(row: CandidateRecord, split: Split) -> Measurement | None:
    """The committed measurement of a split, or None."""
    found = row.evaluation(split)
    return Measurement.model_validate_json(found.measurement) if found and found.measurement else None


def with_gate(passenger: Passenger, gate: Measurement) -> Passenger:
    return replace(passenger, gate=gate)
