"""What a search tells its viewers while it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from agent.ledger import Spend, Status, Tally
from agent.search.board import Board


@dataclass
class Progress:
    """The state of a search, for showing only. Kept by the search, read by views."""

    run: str
    budget: int
    proposer: str
    workers: int
    board: Board
    stage: str = "starting"
    tally: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    in_flight: int = 0
    gating: int = 0
    spend: Spend = field(default_factory=Spend)
    notices: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    before: int = 0  # measured when this process took over
    last_reason: str = ""

    @property
    def measured(self) -> int:
        return self.tally[Status.MEASURED]

    @property
    def proposals(self) -> int:
        return sum(self.tally.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def eta(self) -> float | None:
        """Seconds until the budget is spent, at the pace of this process; None before the first result."""
        done = self.measured - self.before
        return self.seconds / done * (self.budget - self.measured) if done > 0 else None

    def count(self, tally: Tally) -> None:
        self.tally = {status: getattr(tally, status.value) for status in Status}


class View(Protocol):
    """Shows a search. Called from the search's thread; each call returns at once."""

    def start(self, progress: Progress) -> None: ...

    def update(self, progress: Progress) -> None: ...

    def notice(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Shows nothing."""

    def start(self, progress: Progress) -> None: ...

    def update(self, progress: Progress) -> None: ...

    def notice(self, text: str) -> None: ...

    def stop(self) -> None: ...
