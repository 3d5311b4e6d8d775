"""The tables of the ledger. A change needs a migration in `migrations/versions` and a new `schema.HEAD`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMES)


class Environment(Base):
    """The hardware and library versions of measurements; one row per distinct set of facts."""

    __tablename__ = "environments"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)


class Run(Base):
    """One search: its settings are what `--resume` continues with."""

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    settings: Mapped[str] = mapped_column(Text)
    workload: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, str]] = mapped_column(JSON)
    environment_id: Mapped[int | None] = mapped_column(ForeignKey("environments.id"))
    driver: Mapped[str | None] = mapped_column(String(200))
    message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    seconds: Mapped[float] = mapped_column(Float, default=0.0)


class Candidate(Base):
    """One proposal. `identity`: the hash for the row that owns it, null for rejected rows and duplicates."""

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("run_id", "identity"),
        UniqueConstraint("run_id", "number"),
        Index("ix_candidates_hash", "hash"),
        Index("ix_candidates_run_id_status", "run_id", "status"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int] = mapped_column(Integer)
    role: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    name: Mapped[str] = mapped_column(String(200))
    proposer: Mapped[str] = mapped_column(String(64))
    hypothesis: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str | None] = mapped_column(Text)
    policy: Mapped[str | None] = mapped_column(Text)
    knobs: Mapped[str | None] = mapped_column(Text)
    graph: Mapped[str | None] = mapped_column(Text)
    graph_hash: Mapped[str | None] = mapped_column(String(64))
    hash: Mapped[str | None] = mapped_column(String(64))
    identity: Mapped[str | None] = mapped_column(String(64))
    duplicate_of: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Parent(Base):
    """Lineage: `child_id` was derived from `parent_id`."""

    __tablename__ = "parents"
    child_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)


class Evaluation(Base):
    """A finished measurement of a candidate on a split; `measurement` is JSON with the per-sample results."""

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("candidate_id", "split"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    split: Mapped[str] = mapped_column(String(16))
    workload: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    accuracy: Mapped[float | None] = mapped_column(Float)
    bytes_per_step: Mapped[float | None] = mapped_column(Float)
    dense_bytes_per_step: Mapped[float | None] = mapped_column(Float)
    measurement: Mapped[str | None] = mapped_column(Text)
    worker_pid: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[float] = mapped_column(Float)
    reused_from: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id"))
    environment_id: Mapped[int | None] = mapped_column(ForeignKey("environments.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class LlmCall(Base):
    """One request to a language model, answered or not."""

    __tablename__ = "llm_calls"
    __table_args__ = (Index("ix_llm_calls_run_id", "run_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    model: Mapped[str] = mapped_column(String(200))
    purpose: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(32))
    error: Mapped[str | None] = mapped_column(Text)
    prompt: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)
    retries: Mapped[int] = mapped_column(Integer)
    prompt_tokens: Mapped[int] = mapped_column(Integer)
    completion_tokens: Mapped[int] = mapped_column(Integer)
    cost: Mapped[float | None] = mapped_column(Float)
    seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
