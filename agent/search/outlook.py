"""What a proposer is shown: the front and what is near it, the most different, recent failures."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from agent.proposers.base import AcceptedChanges, Failure, Known, SearchView
from agent.search.bench import Bench
from agent.search.board import POOL, Board

BEST, DIFFERENT, RECENT, FAILURES = 16, 4, 6, 8


class Outlook:
    """Collects what happened, and makes the view of the next proposal from it."""

    def __init__(self, board: Board, bench: Bench, floor: float) -> None:
        self._board = board
        self._bench = bench
        self._floor = floor
        self._failures: deque[Failure] = deque(maxlen=FAILURES)
        self._graphs: dict[str, str] = {}  # graph hash by candidate hash, of every accepted candidate
        self._accepted: dict[str, AcceptedChanges] = {}
        self._features = _Features()

    def accepted(self, candidate_hash: str, graph_hash: str, proposer: str, parents: Sequence[str]) -> None:
        """Note a new candidate, and whether it changed its parents' graph."""
        known = [self._graphs[parent] for parent in parents if parent in self._graphs]
        self._graphs[candidate_hash] = graph_hash
        if known:
            before = self._accepted.get(proposer, AcceptedChanges())
            self._accepted[proposer] = AcceptedChanges(
                before.total + 1, before.graph + (graph_hash not in known)
            )

    def failed(self, proposer: str, source: str, reason: str) -> None:
        self._failures.appendleft(Failure(proposer, source, reason))

    def view(self, index: int, proposer: str) -> SearchView:
        """The state of the search for proposal number `index`."""
        rows = self._board.known()
        best = sorted(rows, key=self._behind_front)[:BEST]
        chosen = {known.hash for known in best}
        dense = self._board.dense
        return SearchView(
            index=index,
            best=tuple(best),
            different=tuple(self._features.most_different([k for k in rows if k.hash not in chosen], best)),
            recent=tuple(self._board.latest(RECENT)),
            measured=(*rows, *self._board.stopped()),
            failures=tuple(self._failures),
            space=self._bench.space,
            known=self._graphs.__contains__,
            accepted=self._accepted.get(proposer, AcceptedChanges()),
            dense_accuracy=dense.measurement.accuracy if dense else None,
            dense_bytes=dense.measurement.bytes_per_step if dense else None,
            floor=self._floor,
            prompt_tokens=self._bench.prompt_tokens,
            geometry=self._bench.geometry,
        )

    def _behind_front(self, known: Known) -> tuple[float, float]:
        rival = self._board.rival(known.bytes / known.dense_bytes)
        gap = 0.0 if known.on_front or rival is None else rival.measurement.accuracy - known.accuracy
        return gap, known.bytes


class _Features:
    """Sets of ops as bit masks, by graph: an op used twice is two features."""

    def __init__(self) -> None:
        self._bits: dict[tuple[str, int], int] = {}
        self._masks: dict[str, int] = {}

    def of(self, known: Known) -> int:
        graph = known.candidate.graph
        if graph.hash not in self._masks:
            if len(self._masks) > 4 * POOL:
                self._masks.clear()
            seen: Counter[str] = Counter()
            mask = 0
            for name in [f"cache.{n.op}" for n in graph.cache] + [f"indexer.{n.op}" for n in graph.indexer]:
                seen[name] += 1
                mask |= 1 << self._bits.setdefault((name, seen[name]), len(self._bits))
            self._masks[graph.hash] = mask
        return self._masks[graph.hash]

    def most_different(self, rows: Sequence[Known], best: Sequence[Known]) -> list[Known]:
        """Those whose graphs share the fewest ops with any of the best, one of each graph."""
        shown = {self.of(known) for known in best}
        rated = [(min((_distance(self.of(k), other) for other in shown), default=1.0), k) for k in rows]
        found: dict[str, Known] = {}
        for distance, known in sorted(rated, key=lambda one: (-one[0], -one[1].accuracy)):
            if distance > 0.0:
                found.setdefault(known.candidate.graph.hash, known)
        return list(found.values())[:DIFFERENT]


def _distance(a: int, b: int) -> float:
    """Jaccard distance of two sets."""
    return 1.0 - (a & b).bit_count() / max(1, (a | b).bit_count())
