"""What goes into the ledger and comes out of it: typed records, free of SQL."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Role(StrEnum):
    """Why a candidate is in the run: proposed by the search, or a reference it is compared with."""

    PROPOSED = "proposed"
    SEED = "seed"
    DENSE = "dense"


class Status(StrEnum):
    """Where a candidate stands. Only MEASURED counts towards the budget."""

    PENDING = "pending"  # accepted, its evaluation is not complete
    MEASURED = "measured"  # evaluated on every search prompt
    PRUNED = "pruned"  # stopped after the first prompts: it could not reach the front
    FAILED = "failed"  # its evaluation failed twice
    REJECTED = "rejected"  # refused by the sandbox, the type check or the policy parser
    DUPLICATE = "duplicate"  # its hash is known in this run


class RunStatus(StrEnum):
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"  # gave up before the budget was reached; the message says why
    FINISHED = "finished"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProposalRecord(_Record):
    """A proposal as the proposer made it, before and whether or not it was accepted."""

    name: str
    proposer: str
    hypothesis: str | None = None
    source: str | None = None
    policy: str | None = None
    knobs: str | None = None  # JSON
    parents: tuple[str, ...] = ()  # candidate hashes
    role: Role = Role.PROPOSED


class Entry(_Record):
    """What is known of a proposal once it is a candidate: its graph and its identity."""

    hash: str
    graph_hash: str | None
    graph: str | None  # JSON; None is dense attention


class CallRecord(_Record):
    """One LLM request. `cost` is in US dollars, None where the endpoint's price is unknown."""

    model: str
    purpose: str
    status: str
    prompt: str = ""
    answer: str = ""
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    retries: int = 0


class EvaluationRecord(_Record):
    """A finished evaluation of one split. Failed ones carry a reason and no numbers."""

    split: str
    workload: str
    status: str  # "done" or "failed"
    reason: str | None = None
    accuracy: float | None = None
    bytes_per_step: float | None = None
    dense_bytes_per_step: float | None = None
    measurement: str | None = None  # JSON, with the per-sample results
    worker_pid: int | None = None
    attempts: int = 1
    seconds: float = 0.0
    reused_from: int | None = None


class CandidateRecord(_Record):
    """A candidate row with the evaluations asked for."""

    id: int
    run_id: int
    number: int
    role: Role
    status: Status
    reason: str | None
    name: str
    proposer: str
    hypothesis: str | None
    source: str | None
    policy: str | None
    knobs: str | None
    graph: str | None
    graph_hash: str | None
    hash: str | None
    parents: tuple[str, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()

    def evaluation(self, split: str) -> EvaluationRecord | None:
        """The completed evaluation of this split, or None."""
        return next((e for e in self.evaluations if e.split == split and e.status == "done"), None)


class RunRecord(_Record):
    id: int
    name: str
    status: RunStatus
    settings: str  # JSON
    workload: str
    labels: dict[str, str]
    message: str | None
    created_at: datetime
    finished_at: datetime | None
    seconds: float
    environment_id: int | None


class Tally(_Record):
    """Proposals of a run by status (role "proposed" only)."""

    pending: int = 0
    measured: int = 0
    pruned: int = 0
    failed: int = 0
    rejected: int = 0
    duplicate: int = 0

    @property
    def proposals(self) -> int:
        return self.pending + self.measured + self.pruned + self.failed + self.rejected + self.duplicate


class Spend(_Record):
    """LLM use of a run; `cost` is the sum of the known costs, `unpriced` the calls without one."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
