"""The reads of the ledger. Each is bounded by what it returns; lookups by hash go through an index."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from agent.ledger.errors import LedgerError
from agent.ledger.models import Candidate, Environment, Evaluation, LlmCall, Parent, Run
from agent.ledger.records import (
    CandidateRecord,
    EvaluationRecord,
    Role,
    RunRecord,
    RunStatus,
    Spend,
    Status,
    Tally,
)

_RUN = [getattr(Run, name) for name in RunRecord.model_fields]
_CANDIDATE = [
    getattr(Candidate, name)
    for name in CandidateRecord.model_fields
    if name not in ("parents", "evaluations")
]
_EVALUATION = [getattr(Evaluation, name) for name in EvaluationRecord.model_fields]
_CHUNK = 500  # ids per IN clause, below every backend's limit on parameters


def run(connection: Connection, run_id: int) -> RunRecord:
    return _run(connection.execute(select(*_RUN).where(Run.id == run_id)).one())


def runs(connection: Connection) -> list[RunRecord]:
    return [_run(row) for row in connection.execute(select(*_RUN).order_by(Run.id))]


def find_run(connection: Connection, wanted: str, url: str) -> RunRecord:
    if wanted == "last":
        row = connection.execute(select(*_RUN).order_by(Run.id.desc()).limit(1)).first()
    elif wanted.isdecimal() and len(wanted) < 10:
        row = connection.execute(select(*_RUN).where((Run.id == int(wanted)) | (Run.name == wanted))).first()
    else:
        row = connection.execute(select(*_RUN).where(Run.name == wanted)).first()
    if row is not None:
        return _run(row)
    names = [str(name) for name in connection.execute(select(Run.name).order_by(Run.id.desc())).scalars()]
    if not names:
        raise LedgerError(f"ledger {url} holds no run yet: start one with python -m agent.search")
    near = difflib.get_close_matches(wanted, names, n=1) or names[:1]
    raise LedgerError(
        f"ledger {url} has no run {wanted!r}; the nearest is {near[0]!r} (the newest is {names[0]!r})"
    )


def candidate(connection: Connection, candidate_id: int, url: str) -> CandidateRecord:
    found = _with_evaluations(connection, select(*_CANDIDATE).where(Candidate.id == candidate_id))
    if not found:
        raise LedgerError(f"ledger {url} has no candidate {candidate_id}")
    return found[0]


def candidates(
    connection: Connection, run_id: int, statuses: Sequence[Status] | None, latest: int | None
) -> list[CandidateRecord]:
    wanted = select(*_CANDIDATE).where(Candidate.run_id == run_id)
    if statuses is not None:
        wanted = wanted.where(Candidate.status.in_(statuses))
    if latest is not None:
        newest = _with_evaluations(connection, wanted.order_by(Candidate.number.desc()).limit(latest))
        return newest[::-1]
    return _with_evaluations(connection, wanted.order_by(Candidate.number))


def reusable(
    connection: Connection, candidate_hash: str, split: str, workload: str, environment_digest: str
) -> tuple[int, EvaluationRecord] | None:
    wanted = (
        select(Evaluation.id, *_EVALUATION)
        .join(Candidate, Candidate.id == Evaluation.candidate_id)
        .join(Environment, Environment.id == Evaluation.environment_id)
        .where(
            Candidate.hash == candidate_hash,
            Evaluation.split == split,
            Evaluation.workload == workload,
            Evaluation.status == "done",
            Environment.digest == environment_digest,
        )
        .limit(1)
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    values = dict(row._mapping)
    return int(values.pop("id")), EvaluationRecord.model_validate(values)


def tally(connection: Connection, run_id: int) -> Tally:
    wanted = (
        select(Candidate.status, func.count())
        .where(Candidate.run_id == run_id, Candidate.role == Role.PROPOSED)
        .group_by(Candidate.status)
    )
    return Tally.model_validate({row[0]: row[1] for row in connection.execute(wanted)})


def spend(connection: Connection, run_id: int) -> Spend:
    wanted = select(
        func.count(),
        func.coalesce(func.sum(LlmCall.prompt_tokens), 0),
        func.coalesce(func.sum(LlmCall.completion_tokens), 0),
        func.coalesce(func.sum(LlmCall.cost), 0.0),
        func.count() - func.count(LlmCall.cost),
    ).where(LlmCall.run_id == run_id)
    calls, prompt, completion, cost, unpriced = connection.execute(wanted).one()
    return Spend(
        calls=calls,
        prompt_tokens=int(prompt),
        completion_tokens=int(completion),
        cost=float(cost or 0.0),
        unpriced=unpriced,
    )


def _run(row: Row[Any]) -> RunRecord:
    values = dict(row._mapping)
    values["status"] = RunStatus(values["status"])
    values["created_at"] = _utc(values["created_at"])
    values["finished_at"] = _utc(values["finished_at"]) if values["finished_at"] else None
    return RunRecord.model_validate(values)


def _with_evaluations(connection: Connection, wanted: Select[Any]) -> list[CandidateRecord]:
    rows = [dict(row._mapping) for row in connection.execute(wanted)]
    evaluations: defaultdict[int, list[EvaluationRecord]] = defaultdict(list)
    parents: defaultdict[int, list[str]] = defaultdict(list)
    for ids in _chunks([row["id"] for row in rows]):
        measured = select(Evaluation.candidate_id, *_EVALUATION).where(Evaluation.candidate_id.in_(ids))
        for row in connection.execute(measured.order_by(Evaluation.id)):
            values = dict(row._mapping)
            evaluations[values.pop("candidate_id")].append(EvaluationRecord.model_validate(values))
        lineage = (
            select(Parent.child_id, Candidate.hash)
            .join(Candidate, Candidate.id == Parent.parent_id)
            .where(Parent.child_id.in_(ids))
            .order_by(Parent.parent_id)
        )
        for child, parent in connection.execute(lineage):
            parents[child].append(str(parent))
    return [
        CandidateRecord.model_validate(
            row | {"evaluations": tuple(evaluations[row["id"]]), "parents": tuple(parents[row["id"]])}
        )
        for row in rows
    ]


def _chunks(ids: list[int]) -> Iterable[list[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _utc(moment: datetime) -> datetime:
    # SQLite keeps no time zone; everything is written in UTC.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
