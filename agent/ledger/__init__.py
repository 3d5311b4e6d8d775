"""The ledger: every run, proposal, evaluation and LLM call, in one SQL database. Start at `ledger.py`."""

from __future__ import annotations

from agent.ledger.errors import LedgerError
from agent.ledger.ledger import Ledger
from agent.ledger.records import (
    CallRecord,
    CandidateRecord,
    Entry,
    EvaluationRecord,
    ProposalRecord,
    Role,
    RunRecord,
    RunStatus,
    Spend,
    Status,
    Tally,
)

__all__ = [
    "CallRecord",
    "CandidateRecord",
    "Entry",
    "EvaluationRecord",
    "Ledger",
    "LedgerError",
    "ProposalRecord",
    "Role",
    "RunRecord",
    "RunStatus",
    "Spend",
    "Status",
    "Tally",
]
