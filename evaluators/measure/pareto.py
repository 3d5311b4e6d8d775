"""The Pareto front over (accuracy up, bytes down), and what may be called a win on it.

The front of point estimates picks what is measured again. It proves nothing: the best of 50 equal
candidates with noise lies on it and looks better than its seed. A win is claimed on held-out prompts only,
which played no part in the selection, and with a correction for the number of claims made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from evaluators.measure.measurement import Measurement
from evaluators.measure.stats import (
    Interval,
    holm,
    non_inferior,
    paired_bytes_ratio,
    paired_difference,
    paired_p,
    superior,
)

DEFAULT_MARGIN = 0.05
DEFAULT_SAVING = 0.05
BYTES_TOLERANCE = 0.001


@dataclass(frozen=True)
class Point:
    """Two objectives of something with a name: a candidate's hash, a seed, "dense"."""

    name: str
    accuracy: float
    bytes: float

    @classmethod
    def of(cls, name: str, measurement: Measurement) -> Point:
        return cls(name, measurement.accuracy, measurement.bytes_per_step)


def dominates(a: Point, b: Point) -> bool:
    """a is at least as good as b in both objectives and better in one."""
    return a.accuracy >= b.accuracy and a.bytes <= b.bytes and (a.accuracy, a.bytes) != (b.accuracy, b.bytes)


def front(points: Sequence[Point]) -> list[Point]:
    """Points that nothing dominates, by bytes ascending. Of equal points the first given stays: give seeds
    first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.bytes, -p.accuracy)):  # sorting is stable
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def hypervolume(points: Sequence[Point], dense_bytes: float) -> float:
    """Area between the front and the corner (accuracy 0, `dense_bytes`), as a share of 1: progress in one
    number."""
    area, accuracy = 0.0, 0.0
    for point in front(points):
        if point.bytes < dense_bytes:
            area += (point.accuracy - accuracy) * (1.0 - point.bytes / dense_bytes)
            accuracy = point.accuracy
    return area


class Outcome(StrEnum):
    """What a paired comparison with one reference says."""

    MORE_ACCURATE = "more accurate"
    CHEAPER = "cheaper"
    NO_WIN = "no win"


class Comparison(BaseModel):
    """A candidate against one reference (a seed or dense) on the same held-out prompts."""

    model_config = ConfigDict(frozen=True)

    candidate: str
    reference: str
    outcome: Outcome
    difference: Interval
    bytes_ratio: Interval
    p_adjusted: float
    reason: str


class Standing(BaseModel):
    """All comparisons of one candidate. `wins_over` is what a table may show as a win."""

    model_config = ConfigDict(frozen=True)

    candidate: str
    comparisons: tuple[Comparison, ...]

    def wins_over(self, outcome: Outcome | None = None) -> tuple[str, ...]:
        """References beaten, in any way or in the one named."""
        return tuple(
            c.reference
            for c in self.comparisons
            if c.outcome is not Outcome.NO_WIN and outcome in (None, c.outcome)
        )

    @property
    def is_win(self) -> bool:
        return bool(self.wins_over())


def _judge(
    difference: Interval, ratio: Interval, p_adjusted: float, alpha: float, margin: float, saving: float
) -> tuple[Outcome, str]:
    no_dearer = ratio.high <= 1.0 + BYTES_TOLERANCE
    if no_dearer and superior(difference) and p_adjusted < alpha:
        return Outcome.MORE_ACCURATE, "more accurate at equal or fewer bytes"
    if ratio.high < 1.0 - saving and non_inferior(difference, margin):
        return Outcome.CHEAPER, f"fewer bytes, and at most {margin:.0%} of accuracy lost"
    if not no_dearer:
        return Outcome.NO_WIN, "moves more bytes"
    if ratio.low >= 1.0 - BYTES_TOLERANCE:
        return Outcome.NO_WIN, "costs the same, and the accuracy cannot be told apart"
    if ratio.high >= 1.0 - saving:
        return Outcome.NO_WIN, f"saves less than {saving:.0%}, and is not more accurate by interval"
    return Outcome.NO_WIN, f"cheaper, but may lose {margin:.0%} of accuracy or more"


def standings(
    candidates: Mapping[str, Measurement],
    references: Mapping[str, Measurement],
    *,
    alpha: float = 0.05,
    margin: float = DEFAULT_MARGIN,
    saving: float = DEFAULT_SAVING,
    seed: int = 0,
) -> list[Standing]:
    """Every candidate against every reference (seeds and dense), with wins that hold together at level
    `alpha`.

    A candidate wins over a reference when
    * it moves equal or fewer bytes and its accuracy is above the reference's: the paired interval lies
      above 0 and the sign-flip test holds after Holm's correction over all comparisons made here; or
    * it saves more than `saving` of the bytes and the paired interval excludes a loss of `margin` or more.
    Intervals are two-sided at level 1 - alpha / (number of comparisons) (Bonferroni), so that they hold
    together as well.

    Raises ValueError for measurements that are not of held-out prompts: what was selected on them proves
    nothing there.
    """
    for name, measurement in (*candidates.items(), *references.items()):
        if measurement.split != "heldout":
            raise ValueError(
                f"{name} is of {measurement.split!r} prompts: wins are claimed on 'heldout' only"
            )
    pairs = [(name, reference) for name in candidates for reference in references]
    if not pairs:
        return [Standing(candidate=name, comparisons=()) for name in candidates]
    level = 1.0 - alpha / len(pairs)
    draws = max(10_000, int(4 * len(pairs) / alpha))
    p_values = holm([paired_p(candidates[c], references[r], draws, seed) for c, r in pairs])
    found: dict[str, list[Comparison]] = {name: [] for name in candidates}
    for (name, reference), p_adjusted in zip(pairs, p_values, strict=True):
        a, b = candidates[name], references[reference]
        difference = paired_difference(a, b, level, seed=seed)
        ratio = paired_bytes_ratio(a, b, level, seed=seed)
        outcome, reason = _judge(difference, ratio, p_adjusted, alpha, margin, saving)
        found[name].append(
            Comparison(
                candidate=name,
                reference=reference,
                outcome=outcome,
                difference=difference,
                bytes_ratio=ratio,
                p_adjusted=p_adjusted,
                reason=reason,
            )
        )
    return [Standing(candidate=name, comparisons=tuple(found[name])) for name in candidates]
