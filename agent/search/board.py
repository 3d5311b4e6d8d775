"""The standing of a search in memory: references, the front, and a bounded pool of what was measured lately.

Only the front and the references keep their samples, so a search of thousands of candidates stays small.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from agent.ledger import Role
from agent.proposers.base import Known
from evaluators.measure import Measurement
from evaluators.measure.pareto import Point, front
from evaluators.measure.stats import interval
from search_spaces.candidate import Candidate

POOL = 100
RESAMPLES = 2_000  # intervals shown to proposers; the report draws its own


@dataclass(frozen=True)
class Entrant:
    """A candidate that was measured on all search prompts. Dense attention has no `candidate`."""

    id: int
    name: str
    role: Role
    hash: str
    measurement: Measurement
    candidate: Candidate | None = None
    source: str = ""
    hypothesis: str = ""
    proposer: str = ""
    parents: tuple[str, ...] = ()

    @property
    def point(self) -> Point:
        return Point.of(self.hash, self.measurement)


class Board:
    """Who stands where. `add` costs the same however many candidates there were."""

    def __init__(self, pool: int = POOL) -> None:
        self.dense: Entrant | None = None
        self.seeds: list[Entrant] = []
        self._front: dict[str, Entrant] = {}
        self._pool: deque[Known] = deque(maxlen=pool)
        self._stopped: deque[Known] = deque(maxlen=pool)
        self._known: dict[str, Known] = {}  # of the references and the front

    def add(self, entrant: Entrant) -> bool:
        """Enter a measured candidate; True when it stands on the front now."""
        if entrant.role is Role.DENSE:
            self.dense = entrant
        elif entrant.role is Role.SEED:
            self.seeds.append(entrant)
        self._update_front(entrant)
        on_front = entrant.hash in self._front
        if entrant.candidate is not None:
            known = _known(entrant, entrant.candidate)
            self._pool.append(known)
            if on_front or entrant.role is Role.SEED:
                self._known[entrant.hash] = known
        return on_front

    def add_stopped(self, entrant: Entrant) -> None:
        """Remember a candidate that was stopped at the gate, measured on the gate's prompts only."""
        if entrant.candidate is not None:
            self._stopped.append(_known(entrant, entrant.candidate))

    @property
    def front(self) -> list[Entrant]:
        """Entrants that no other dominates, by bytes ascending. References win ties."""
        return list(self._front.values())

    @property
    def references(self) -> list[Entrant]:
        return ([self.dense] if self.dense else []) + self.seeds

    def rival(self, bytes_ratio: float) -> Entrant | None:
        """The most accurate of the front that moves no more than this share of dense bytes, or None."""
        cheaper = [e for e in self._front.values() if e.measurement.bytes_ratio <= bytes_ratio]
        return max(cheaper, key=lambda e: e.measurement.accuracy, default=None)

    def known(self) -> list[Known]:
        """The front, the seeds and the newest, each once, as proposers see them."""
        rows = {known.hash: known for known in (*self._known.values(), *self._pool)}
        return [_on_front(known, known.hash in self._front) for known in rows.values()]

    def stopped(self) -> list[Known]:
        """The newest that did not pass the gate."""
        return list(self._stopped)

    def latest(self, count: int) -> list[Known]:
        """The newest measured candidates of the search's own, newest first."""
        own = [known for known in reversed(self._pool) if known.proposer != "seed"]
        return [_on_front(known, known.hash in self._front) for known in own[:count]]

    def _update_front(self, entrant: Entrant) -> None:
        # References first: of equal points the first given stays, and a candidate equal to dense is not news.
        entrants = {e.hash: e for e in (*self.references, *self._front.values(), entrant)}
        standing = front([e.point for e in entrants.values()])
        self._front = {point.name: entrants[point.name] for point in standing}
        kept = self._front.keys() | {seed.hash for seed in self.seeds}
        self._known = {key: known for key, known in self._known.items() if key in kept}


def _known(entrant: Entrant, candidate: Candidate) -> Known:
    measured = entrant.measurement
    spread = interval(measured, resamples=RESAMPLES)
    return Known(
        hash=entrant.hash,
        candidate=candidate,
        source=entrant.source,
        hypothesis=entrant.hypothesis,
        proposer=entrant.proposer,
        parents=entrant.parents,
        accuracy=measured.accuracy,
        low=spread.low,
        high=spread.high,
        bytes=measured.bytes_per_step,
        dense_bytes=measured.dense_bytes_per_step,
        by_task=tuple(measured.task_accuracy().items()),
    )


def _on_front(known: Known, on_front: bool) -> Known:
    return replace(known, on_front=on_front) if known.on_front != on_front else known
