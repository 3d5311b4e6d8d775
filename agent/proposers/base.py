"""The interface of a proposer: what it may see, what it hands back, and how it says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace
from vortex.graph.geometry import Geometry


@dataclass(frozen=True)
class Known:
    """A measured candidate as a proposer sees it. Also a `search_spaces.objectives.Point`.

    accuracy: mean in [0, 1] over the search prompts, with its interval `low`..`high`; bytes: per decode
    step of the whole model; dense_bytes: the same prompts read densely.
    """

    hash: str
    candidate: Candidate
    source: str
    hypothesis: str
    proposer: str
    parents: tuple[str, ...]
    accuracy: float
    low: float
    high: float
    bytes: float
    dense_bytes: float
    on_front: bool = False
    by_task: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Failure:
    """A proposal that was not measured, and why."""

    proposer: str
    source: str
    reason: str


@dataclass(frozen=True)
class AcceptedChanges:
    """Over the accepted children of one proposer (known parents, not rejected, not duplicates): how many
    there are, and how many of them have a graph that none of their parents has."""

    total: int = 0
    graph: int = 0


@dataclass(frozen=True)
class SearchView:
    """What a proposer may look at. Read-only; made afresh for every proposal.

    index: position of this proposal in the search, stable over a resume: the source of randomness is
    (seed, index). best: the front first, then what is nearest to it, seeds included, best first.
    different: measured candidates that differ most in graph from `best`. measured: those two, what else of
    the latest measured candidates and the seeds is remembered, and the latest that were stopped at the gate,
    with what they reached there on its few prompts. suggestion: the knobs that the
    study asks for, None without a study. known: whether a candidate hash has already been proposed,
    measured or not.
    """

    index: int
    best: tuple[Known, ...]
    different: tuple[Known, ...] = ()
    failures: tuple[Failure, ...] = ()
    suggestion: Knobs | None = None
    space: KnobSpace = field(default_factory=KnobSpace)
    known: Callable[[str], bool] = lambda _hash: False
    accepted: AcceptedChanges = AcceptedChanges()
    dense_accuracy: float | None = None
    dense_bytes: float | None = None
    floor: float = 0.05
    prompt_tokens: int | None = None
    recent: tuple[Known, ...] = ()
    measured: tuple[Known, ...] = ()
    geometry: Geometry = field(default_factory=Geometry)


@dataclass(frozen=True)
class LLMCall:
    """One request to a model service, as the ledger keeps it. No text in it holds the key.

    status: "ok", "empty", "unusable", "timeout", "connection" or "http <code>"; error: what went wrong,
    in words. cost: US dollars, None where the model's price is unknown. retries: requests sent in vain
    before this answer.
    """

    model: str
    purpose: Literal["propose", "repair", "again"]
    status: str
    prompt: str = ""
    answer: str = ""
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    retries: int = 0


@dataclass(frozen=True)
class Proposal:
    """A candidate before anybody trusts it: the flow's source still has to pass the sandbox.

    knobs are complete: what the proposer had no opinion on comes from the suggestion. calls: the requests
    to a model that led here since the proposal before it (a repair carries only its own). attempt: 0,
    then 1.. for repairs.
    """

    source: str
    knobs: Knobs
    hypothesis: str
    proposer: str
    parents: tuple[str, ...] = ()
    calls: tuple[LLMCall, ...] = ()
    attempt: int = 0

    @property
    def policy(self) -> str | None:
        return self.knobs.policy

    def without_calls(self) -> Proposal:
        return replace(self, calls=())


class NoProposalError(Exception):
    """This proposal could not be made; the search records it as rejected with `reason` and goes on.

    stop: no later proposal can be made either (key refused, money spent): the search should end or fall
    back.
    """

    def __init__(self, reason: str, *, calls: tuple[LLMCall, ...] = (), answer: str = "", stop: bool = False):
        super().__init__(reason)
        self.reason = reason
        self.calls = calls
        self.answer = answer
        self.stop = stop


class Proposer(Protocol):
    """Makes one proposal at a time. Not thread-safe: the search calls it from one thread only.

    Equal views and equal seeds give equal proposals (a model service aside), so a resumed search needs no
    state of it.
    """

    name: str

    def propose(self, view: SearchView) -> Proposal:
        """The next proposal. Raises NoProposalError."""
        ...

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        """Another try after `error` refused the proposal; None when this proposer will not try again.

        Raises NoProposalError when a try was made and gave nothing usable.
        """
        ...
