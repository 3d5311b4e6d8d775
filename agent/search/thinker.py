"""Runs the proposer and the check in a thread of its own: neither a slow LLM nor a candidate that hangs in
the sandbox keeps the workers waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace

from agent.proposers.base import NoProposalError, Proposal, Proposer, SearchView
from agent.search.check import Checked, Checker
from search_spaces.knobs import Knobs

_PATIENCE = 2.0

Thought = Checked | NoProposalError | None
"""A checked proposal; or why there is none; or None when the proposer does not want to repair."""


class Thinker:
    """At most one request at a time. The thread is a daemon: a request in flight does not delay an exit."""

    def __init__(self, proposer: Proposer, checker: Checker) -> None:
        self._proposer = proposer
        self._checker = checker
        self._requests: queue.SimpleQueue[Callable[[], Proposal | None] | None] = queue.SimpleQueue()
        self._thoughts: queue.SimpleQueue[Thought] = queue.SimpleQueue()
        self.busy = False
        self._thread = threading.Thread(target=self._run, name="proposer", daemon=True)
        self._thread.start()

    def propose(self, view: SearchView, suggest: Callable[[], Knobs]) -> None:
        """Think of a candidate; the knobs are suggested in the thread too, for that takes milliseconds."""
        self._request(lambda: self._proposer.propose(replace(view, suggestion=suggest())))

    def repair(self, proposal: Proposal, error: str) -> None:
        """Have the proposer correct its proposal, which was refused with this error."""
        self._request(lambda: self._proposer.repair(proposal, error))

    def take(self, timeout: float) -> Thought:
        """The thought, if it comes within `timeout` seconds; `busy` says whether it is still to come."""
        try:
            thought = self._thoughts.get(timeout=timeout)
        except queue.Empty:
            return None
        self.busy = False
        return thought

    def close(self) -> None:
        """Think no more. A thought that is nearly finished is waited for, a request to an LLM is not."""
        self._requests.put(None)
        self._thread.join(_PATIENCE)

    def _request(self, work: Callable[[], Proposal | None]) -> None:
        if self.busy:
            raise RuntimeError("the proposer is thinking already: take its thought first")
        self.busy = True
        self._requests.put(work)

    def _run(self) -> None:
        while (work := self._requests.get()) is not None:
            self._thoughts.put(self._think(work))

    def _think(self, work: Callable[[], Proposal | None]) -> Thought:
        try:
            proposal = work()
        except NoProposalError as error:
            return error
        except Exception as error:  # a proposer's fault costs its proposal, not the run
            return NoProposalError(f"the proposer failed: {type(error).__name__}: {error}")
        return None if proposal is None else self._checker.check(proposal)
