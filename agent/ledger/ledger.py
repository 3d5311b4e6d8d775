"""The store: one method per change of state, one transaction per method.

A process may die between any two calls: what was committed stands, and what was pending is found again by
`pending`. Safe for use from several threads and processes; a run is driven by one process at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from agent.ledger import driver, queries
from agent.ledger.database import as_url, open_engine
from agent.ledger.errors import LedgerError, explained
from agent.ledger.models import Candidate, Environment, Evaluation, LlmCall, Parent, Run
from agent.ledger.records import (
    CallRecord,
    CandidateRecord,
    Entry,
    EvaluationRecord,
    ProposalRecord,
    RunRecord,
    RunStatus,
    Spend,
    Status,
    Tally,
)

# The statements of every candidate, built once: building one costs more than running it.
_KNOWN = select(Candidate.id).where(
    Candidate.run_id == bindparam("run"), Candidate.identity == bindparam("key")
)
_SETTLE = update(Candidate).where(Candidate.id == bindparam("candidate"))
_FORGET = delete(Evaluation).where(
    Evaluation.candidate_id == bindparam("candidate"),
    Evaluation.split == bindparam("failed_split"),
    Evaluation.status == "failed",
)


class Ledger:
    """Opens the database at `database` (a URL or a SQLite path), creating or upgrading its tables.

    With `create=False` a missing file is an error, and a read-only one can be read.
    """

    def __init__(self, database: str | Path, *, create: bool = True) -> None:
        self.url = as_url(database)
        self._engine = open_engine(database, create=create)
        self._writer = self._engine.execution_options(write=True)
        self._environments: dict[str, tuple[int, str]] = {}  # (id, digest) by the facts' JSON
        self._numbers: dict[int, int] = {}  # next proposal number by run; a run has one driver

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- runs --

    def create_run(
        self,
        name: str,
        settings: str,
        workload: str,
        environment: Mapping[str, object],
        labels: Mapping[str, str] | None = None,
    ) -> RunRecord:
        """Start a run driven by this process. `settings` is JSON, all that `--resume` needs;
        `labels` is what a reader must know to judge the numbers."""
        environment_id, _ = self._known_environment(environment)
        with explained(self.url), self._writer.begin() as connection:
            row: dict[str, Any] = {
                "name": name,
                "status": RunStatus.RUNNING,
                "settings": settings,
                "workload": workload,
                "labels": dict(labels or {}),
                "environment_id": environment_id,
                "driver": driver.me(),
                "created_at": _now(),
                "seconds": 0.0,
            }
            run_id = _inserted(connection, Run, row)
        return self.run(run_id)

    def run(self, run_id: int) -> RunRecord:
        with explained(self.url), self._engine.connect() as connection:
            return queries.run(connection, run_id)

    def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        with explained(self.url), self._engine.connect() as connection:
            return queries.runs(connection)

    def find_run(self, wanted: str) -> RunRecord:
        """A run by its name, its number, or "last" for the newest one.

        Raises:
            LedgerError: no such run; the message names the nearest.
        """
        with explained(self.url), self._engine.connect() as connection:
            return queries.find_run(connection, wanted, self.url)

    def take_over(self, run: RunRecord) -> None:
        """Make this process the driver of a run whose driver is gone.

        Raises:
            LedgerError: another live process on this machine drives the run.
        """
        with explained(self.url), self._writer.begin() as connection:
            holder = connection.execute(select(Run.driver).where(Run.id == run.id)).scalar()
            if holder and driver.is_alive(holder):
                raise LedgerError(
                    f"run {run.name} is still driven by process {driver.describe(holder)}: "
                    "wait for it, or stop it with Ctrl-C, then resume"
                )
            changes = {
                "driver": driver.me(),
                "status": RunStatus.RUNNING,
                "message": None,
                "finished_at": None,
            }
            connection.execute(update(Run).where(Run.id == run.id).values(changes))

    def end_run(self, run_id: int, status: RunStatus, seconds: float, message: str | None = None) -> None:
        """Record how this process leaves the run; `seconds` of work are added to the run's."""
        changes = {
            "status": status,
            "message": message,
            "driver": None,
            "finished_at": _now() if status in (RunStatus.FINISHED, RunStatus.STOPPED) else None,
            "seconds": Run.seconds + seconds,
        }
        with explained(self.url), self._writer.begin() as connection:
            connection.execute(update(Run).where(Run.id == run_id).values(changes))

    def set_settings(self, run_id: int, settings: str) -> None:
        """Replace the settings, when a resumed run is given a larger budget."""
        with explained(self.url), self._writer.begin() as connection:
            connection.execute(update(Run).where(Run.id == run_id).values(settings=settings))

    # -- candidates --

    def accept(self, run_id: int, proposal: ProposalRecord, entry: Entry) -> int:
        """Record a new candidate as pending and return its id.

        Raises:
            LedgerError: the hash is known in this run; ask `known` first.
        """
        row = _entry(entry) | {"identity": entry.hash}
        return self._add(run_id, proposal, Status.PENDING, row)

    def reject(self, run_id: int, proposal: ProposalRecord, reason: str) -> int:
        """Record a proposal that never became a candidate, with the reason."""
        return self._add(run_id, proposal, Status.REJECTED, {"reason": reason})

    def duplicate(self, run_id: int, proposal: ProposalRecord, entry: Entry, original: int) -> int:
        """Record a proposal whose hash belongs to the candidate with id `original`."""
        row = _entry(entry) | {"duplicate_of": original, "reason": f"same hash as candidate {original}"}
        return self._add(run_id, proposal, Status.DUPLICATE, row)

    def known(self, run_id: int, candidate_hash: str) -> int | None:
        """The id of the candidate of this run that owns the hash, or None."""
        with explained(self.url), self._engine.connect() as connection:
            return connection.execute(_KNOWN, {"run": run_id, "key": candidate_hash}).scalar()

    def hashes(self, run_id: int) -> set[str]:
        """The hashes that have an owner in this run."""
        wanted = select(Candidate.identity).where(Candidate.run_id == run_id, Candidate.identity.is_not(None))
        with explained(self.url), self._engine.connect() as connection:
            return {str(key) for key in connection.execute(wanted).scalars()}

    def settle(self, candidate_id: int, status: Status, reason: str | None = None) -> None:
        """Give a pending candidate its final status without an evaluation."""
        with explained(self.url), self._writer.begin() as connection:
            _settle(connection, candidate_id, status, reason)

    # -- evaluations --

    def record(
        self,
        candidate_id: int,
        evaluation: EvaluationRecord,
        status: Status | None = None,
        reason: str | None = None,
        environment: Mapping[str, object] | None = None,
    ) -> None:
        """Commit an evaluation, and with it the candidate's new status where it has one.

        A failed evaluation of the same split is replaced; a completed one stays and is an error to repeat.
        """
        environment_id = self._known_environment(environment)[0] if environment is not None else None
        with explained(self.url), self._writer.begin() as connection:
            connection.execute(_FORGET, {"candidate": candidate_id, "failed_split": evaluation.split})
            row = evaluation.model_dump() | {
                "candidate_id": candidate_id,
                "environment_id": environment_id,
                "created_at": _now(),
            }
            connection.execute(insert(Evaluation), row)
            if status is not None:
                _settle(connection, candidate_id, status, reason)

    def reusable(
        self, candidate_hash: str, split: str, workload: str, environment: Mapping[str, object]
    ) -> tuple[int, EvaluationRecord] | None:
        """A completed evaluation of the same candidate, prompts and environment in any run, with its id."""
        _, digest = self._known_environment(environment)
        with explained(self.url), self._engine.connect() as connection:
            return queries.reusable(connection, candidate_hash, split, workload, digest)

    def pending(self, run_id: int) -> list[CandidateRecord]:
        """Candidates that were accepted and whose evaluation is not complete, oldest first."""
        return self.candidates(run_id, statuses=(Status.PENDING,))

    def candidates(
        self, run_id: int, statuses: Sequence[Status] | None = None, *, latest: int | None = None
    ) -> list[CandidateRecord]:
        """Candidates of a run with evaluations and parents, oldest first; `latest`: the newest so many."""
        with explained(self.url), self._engine.connect() as connection:
            return queries.candidates(connection, run_id, statuses, latest)

    def candidate(self, candidate_id: int) -> CandidateRecord:
        with explained(self.url), self._engine.connect() as connection:
            return queries.candidate(connection, candidate_id, self.url)

    def tally(self, run_id: int) -> Tally:
        """Proposals of a run by status; references are not counted."""
        with explained(self.url), self._engine.connect() as connection:
            return queries.tally(connection, run_id)

    # -- LLM calls and environments --

    def record_calls(self, run_id: int, candidate_id: int | None, calls: Sequence[CallRecord]) -> None:
        if not calls:
            return
        rows = [
            call.model_dump() | {"run_id": run_id, "candidate_id": candidate_id, "created_at": _now()}
            for call in calls
        ]
        with explained(self.url), self._writer.begin() as connection:
            connection.execute(insert(LlmCall), rows)

    def spend(self, run_id: int) -> Spend:
        with explained(self.url), self._engine.connect() as connection:
            return queries.spend(connection, run_id)

    def environment(self, environment_id: int | None) -> dict[str, object]:
        """The facts of an environment; empty when it is unknown."""
        with explained(self.url), self._engine.connect() as connection:
            found = connection.execute(
                select(Environment.facts).where(Environment.id == environment_id)
            ).scalar()
        return dict(found or {})

    def _known_environment(self, facts: Mapping[str, object]) -> tuple[int, str]:
        """(id, digest) of an environment, added when it is new."""
        text = json.dumps(facts, sort_keys=True, default=str)
        if text not in self._environments:
            digest = hashlib.sha256(text.encode()).hexdigest()
            with explained(self.url), self._writer.begin() as connection:
                self._environments[text] = (_environment(connection, digest, facts), digest)
        return self._environments[text]

    def _add(self, run_id: int, proposal: ProposalRecord, status: Status, extra: dict[str, Any]) -> int:
        row = proposal.model_dump(exclude={"parents"}) | {
            "run_id": run_id,
            "status": status,
            "created_at": _now(),
        }
        try:
            with explained(self.url), self._writer.begin() as connection:
                number = self._numbers.get(run_id) or _next_number(connection, run_id)
                candidate_id = _inserted(connection, Candidate, row | extra | {"number": number})
                _link(connection, run_id, candidate_id, proposal.parents)
        except LedgerError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise LedgerError(
                    f"ledger {self.url}: run {run_id} already has this candidate ({error})"
                ) from error
            raise
        self._numbers[run_id] = number + 1
        return candidate_id


def _entry(entry: Entry) -> dict[str, Any]:
    return entry.model_dump()


def _inserted(connection: Connection, table: type[Run] | type[Candidate], row: dict[str, Any]) -> int:
    result = connection.execute(insert(table), row)
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def _next_number(connection: Connection, run_id: int) -> int:
    highest = connection.execute(
        select(func.max(Candidate.number)).where(Candidate.run_id == run_id)
    ).scalar()
    return (highest or 0) + 1


def _link(connection: Connection, run_id: int, child: int, parents: Sequence[str]) -> None:
    if not parents:
        return
    wanted = select(Candidate.id).where(Candidate.run_id == run_id, Candidate.identity.in_(set(parents)))
    rows = [
        {"child_id": child, "parent_id": parent}
        for parent in connection.execute(wanted).scalars()
        if parent != child
    ]
    if rows:
        connection.execute(insert(Parent), rows)


def _settle(connection: Connection, candidate_id: int, status: Status, reason: str | None) -> None:
    connection.execute(_SETTLE, {"candidate": candidate_id, "status": status, "reason": reason})


def _environment(connection: Connection, digest: str, facts: Mapping[str, object]) -> int:
    found = connection.execute(select(Environment.id).where(Environment.digest == digest)).scalar()
    if found is not None:
        return found
    result = connection.execute(insert(Environment), {"digest": digest, "facts": dict(facts)})
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def _now() -> datetime:
    return datetime.now(UTC)
