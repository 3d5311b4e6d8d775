"""Every proposal becomes a row of the ledger: a new candidate, a duplicate, or a refusal with its reason."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.ledger import CallRecord, Entry, Ledger, ProposalRecord, Role
from agent.proposers.base import LLMCall, NoProposalError, Proposal
from agent.search.check import Checked
from search_spaces.candidate import Candidate
from search_spaces.seeds import Seed

_REGISTERED = re.compile(r"@register\(\s*[\"']([\w.\-]{1,100})[\"']\s*\)")


@dataclass(frozen=True)
class Accepted:
    """A new candidate, pending in the ledger."""

    id: int
    name: str
    candidate: Candidate
    proposal: Proposal


@dataclass(frozen=True)
class Refused:
    """A proposal that is not measured. `repairable`: its author may learn from the reason and try again."""

    proposal: Proposal
    reason: str
    repairable: bool


class Intake:
    def __init__(self, ledger: Ledger, run_id: int) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._hashes = ledger.hashes(run_id)  # a run has one driver: what is not here is new

    def admit(self, checked: Checked) -> Accepted | Refused:
        """Record a checked proposal, whatever became of it."""
        proposal = checked.proposal
        if checked.candidate is not None:
            return self._enter(proposal, checked.candidate, _record(proposal, Role.PROPOSED))
        self.leave(checked, checked.reason)
        return Refused(proposal, checked.reason, repairable=True)

    def leave(self, checked: Checked, reason: str) -> None:
        """Record a proposal that is not measured, with the reason and what it cost."""
        row = self._ledger.reject(self._run_id, _record(checked.proposal, Role.PROPOSED), reason)
        self._calls(row, checked.proposal.calls)

    def _enter(self, proposal: Proposal, candidate: Candidate, record: ProposalRecord) -> Accepted | Refused:
        graph = candidate.graph.canonical()
        entry = Entry(hash=candidate.hash, graph_hash=graph.hash, graph=graph.to_json())
        original = self._ledger.known(self._run_id, entry.hash) if entry.hash in self._hashes else None
        if original is not None:
            row = self._ledger.duplicate(self._run_id, record, entry, original)
            self._calls(row, proposal.calls)
            return Refused(proposal, f"a duplicate of candidate {original}", repairable=False)
        row = self._ledger.accept(self._run_id, record, entry)
        self._hashes.add(entry.hash)
        self._calls(row, proposal.calls)
        return Accepted(row, record.name, candidate, proposal)

    def admit_seed(self, seed: Seed) -> Accepted | Refused:
        """Record a reference flow, which is trusted: it is measured, and never counted."""
        proposal = Proposal(seed.source, seed.candidate.knobs, f"reference: {seed.name}", "seed")
        return self._enter(proposal, seed.candidate, _record(proposal, Role.SEED, seed.name))

    def admit_dense(self) -> int:
        """Record dense attention as a reference and return its id."""
        record = ProposalRecord(name="dense", proposer="reference", role=Role.DENSE)
        return self._ledger.accept(self._run_id, record, Entry(hash="dense", graph_hash=None, graph=None))

    def note_silence(self, error: NoProposalError, proposer: str) -> None:
        """Record that the proposer had nothing to propose, and what that cost."""
        record = ProposalRecord(
            name=f"{proposer}: no proposal", proposer=proposer, source=error.answer or None
        )
        row = self._ledger.reject(self._run_id, record, error.reason)
        self._calls(row, error.calls)

    def _calls(self, row: int, calls: tuple[LLMCall, ...]) -> None:
        records = [
            CallRecord(
                model=call.model,
                purpose=call.purpose,
                status=call.status,
                prompt=call.prompt,
                answer=call.answer,
                error=call.error,
                prompt_tokens=call.prompt_tokens,
                completion_tokens=call.completion_tokens,
                cost=call.cost,
                seconds=call.seconds,
                retries=call.retries,
            )
            for call in calls
        ]
        self._ledger.record_calls(self._run_id, row, records)


def _record(proposal: Proposal, role: Role, name: str | None = None) -> ProposalRecord:
    found = _REGISTERED.search(proposal.source)
    return ProposalRecord(
        name=name or (found.group(1) if found else proposal.proposer),
        proposer=proposal.proposer,
        hypothesis=proposal.hypothesis,
        source=proposal.source,
        policy=proposal.policy,
        knobs=proposal.knobs.model_dump_json(),
        parents=proposal.parents,
        role=role,
    )
