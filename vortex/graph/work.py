"""Amounts of work: bytes and operations, and a decode step split by purpose."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(frozen=True)
class Work:
    """Bytes moved and floating-point operations."""

    bytes_read: float = 0
    bytes_written: float = 0
    flops: float = 0

    @property
    def bytes(self) -> float:
        return self.bytes_read + self.bytes_written

    def __add__(self, other: Work) -> Work:
        return Work(
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.flops + other.flops,
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.bytes_read * times, self.bytes_written * times, self.flops * times)


@dataclass(frozen=True)
class Cost:
    """A decode step by purpose.

    summaries: finished blocks read, their fields written. scores: what the indexer reads, passes between
    kernels and saves. selection: the scores written and read. attention: the tokens attended to.
    row_values: what exists once a row (the query, results without an axis of blocks) as it passes between
    the indexer's kernels. It fits into any cache, and is no part of `bytes`.
    """

    summaries: Work = field(default_factory=Work)
    scores: Work = field(default_factory=Work)
    selection: Work = field(default_factory=Work)
    attention: Work = field(default_factory=Work)
    row_values: Work = field(default_factory=Work)

    @property
    def bytes(self) -> float:
        """The price of the step."""
        return self.summaries.bytes + self.scores.bytes + self.selection.bytes + self.attention.bytes

    @property
    def flops(self) -> float:
        return self.summaries.flops + self.scores.flops + self.selection.flops + self.attention.flops

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(getattr(self, part.name) * times for part in fields(self)))
