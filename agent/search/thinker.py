"""Runs the proposer in a thread of its own: a slow one (an LLM) must not keep the executors waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from agent.proposers.base import NoProposalError, Proposal, Proposer, SearchView

Thought = Proposal | NoProposalError | None
"""A proposal; or why there is none; or None when the proposer does not want to repair."""


class Thinker:
    """At most one request at a time. The thread is a daemon: a request in flight does not delay an exit."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._requests: queue.SimpleQueue[Callable[[], Thought] | None] = queue.SimpleQueue()
        self._thoughts: queue.SimpleQueue[Thought] = queue.SimpleQueue()
        self.busy = False
        threading.Thread(target=self._run, name="proposer", daemon=True).start()

    def propose(self, view: SearchView) -> None:
        self._request(lambda: self._proposer.propose(view))

    def repair(self, proposal: Proposal, error: str) -> None:
        self._request(lambda: self._proposer.repair(proposal, error))

    def take(self, timeout: float) -> tuple[bool, Thought]:
        """(True, thought) when there is one within `timeout` seconds, else (False, None)."""
        try:
            thought = self._thoughts.get(timeout=timeout)
        except queue.Empty:
            return False, None
        self.busy = False
        return True, thought

    def close(self) -> None:
        self._requests.put(None)

    def _request(self, work: Callable[[], Thought]) -> None:
        if self.busy:
            raise RuntimeError("the proposer is thinking already: take its thought first")
        self.busy = True
        self._requests.put(work)

    def _run(self) -> None:
        while (work := self._requests.get()) is not None:
            try:
                thought = work()
            except NoProposalError as error:
                thought = error
            except Exception as error:  # a proposer's fault costs its proposal, not the run
                thought = NoProposalError(f"the proposer failed: {type(error).__name__}: {error}")
            self._thoughts.put(thought)
