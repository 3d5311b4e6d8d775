"""Paired comparison of measurements: bootstrap intervals stratified by task, sign-flip tests, Holm's
correction.

All comparisons are of the same prompts. The statistic is always the score's own: the mean over tasks of
the mean over prompts, so the tasks are the strata and prompts are resampled within a task.

Two corrections make the intervals honest for few prompts:

* A stratum of n prompts is resampled n - 1 times (Rao and Wu 1988): the plain bootstrap understates its
  variance by (n - 1) / n, which is 12% for 8 prompts.
* The bootstrap cannot see what did not happen: 8 of 8 equal pairs would give the interval [0, 0].
  Pseudo-observations are added in the manner of Agresti and Min (2005) for paired differences, Agresti and
  Coull (1998) for one score, as an independent normal term that fades with 1/n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from evaluators.measure.measurement import Measurement

Floats = NDArray[np.float64]

RESAMPLES = 10_000
MIN_TAIL = 20
"""Resamples that must lie beyond each end of an interval; a stricter level draws more of them."""


class Interval(BaseModel):
    """A mean and its two-sided confidence interval at `level`."""

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float
    level: float

    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Strata:
    """Prompts grouped by task, with the weight of each prompt in the mean over tasks of the mean over
    prompts."""

    def __init__(self, tasks: Sequence[str]) -> None:
        if not tasks:
            raise ValueError("no prompts to compare")
        names = np.asarray(tasks)
        unique, self.index, counts = np.unique(names, return_inverse=True, return_counts=True)
        self.size = len(names)
        self.weights: Floats = 1.0 / (len(unique) * counts[self.index].astype(np.float64))
        # A task with one prompt has no variance of its own: such tasks form one stratum (collapsed strata).
        stratum = np.where(counts[self.index] == 1, -1, self.index)
        self.layout: tuple[int, ...] = tuple(int(i) for i in stratum)
        self.effective = 1.0 / float(np.sum(self.weights**2))

    def mean(self, values: Floats) -> float:
        return float(values @ self.weights)

    def resampled_means(self, values: Floats, resamples: int, seed: int) -> Floats:
        """Bootstrap distribution of the mean: [resamples]."""
        return _resample_counts(self.layout, resamples, seed) @ (values * self.weights)


@lru_cache(maxsize=8)
def _resample_counts(layout: tuple[int, ...], resamples: int, seed: int) -> Floats:
    """How much each prompt weighs in each resample: [resamples, prompts], every row sums to a stratum's size.

    Cached, because all comparisons of a run are of the same prompts: they also share their random numbers.
    """
    rng = np.random.default_rng(seed)
    strata = np.asarray(layout)
    counts = np.ones((resamples, len(layout)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        if n > 1:
            drawn = rng.multinomial(n - 1, np.full(n, 1.0 / n), size=resamples)
            counts[:, members] = drawn * (n / (n - 1))
    counts.setflags(write=False)
    return counts


def _draws(resamples: int, level: float) -> int:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level}: a confidence level lies between 0 and 1, for example 0.95")
    return max(resamples, math.ceil(2 * MIN_TAIL / (1.0 - level)))


def _interval(
    values: Floats,
    strata: Strata,
    pseudo_sd: float,
    bounds: tuple[float, float],
    level: float,
    resamples: int,
    seed: int,
) -> Interval:
    draws = _draws(resamples, level)
    means = strata.resampled_means(values, draws, seed)
    means = means + np.random.default_rng(seed + 1).normal(0.0, pseudo_sd, size=draws)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, (tail, 1.0 - tail))
    mean = strata.mean(values)
    # The mean lies inside by definition; the quantiles of a skewed distribution need not agree.
    return Interval(
        mean=mean,
        low=min(mean, max(bounds[0], float(low))),
        high=max(mean, min(bounds[1], float(high))),
        level=level,
    )


def score_interval(
    tasks: Sequence[str], scores: Floats, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of one score in [0, 1]; [prompts] scores with the task of each."""
    strata = Strata(tasks)
    pseudo_sd = math.sqrt(2.0) / (strata.effective + 4.0)
    return _interval(scores, strata, pseudo_sd, (0.0, 1.0), level, resamples, seed)


def difference_interval(
    tasks: Sequence[str], differences: Floats, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of the mean of paired score differences, each in [-1, 1]."""
    strata = Strata(tasks)
    pseudo_sd = 1.0 / (strata.effective + 2.0)
    return _interval(differences, strata, pseudo_sd, (-1.0, 1.0), level, resamples, seed)


def ratio_interval(
    tasks: Sequence[str],
    numerator: Floats,
    denominator: Floats,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of mean(numerator) / mean(denominator) over the same prompts. Bytes are not random given a
    prompt, so equal ratios on all prompts give an interval of no width."""
    strata = Strata(tasks)
    draws = _draws(resamples, level)
    ratios = strata.resampled_means(numerator, draws, seed) / strata.resampled_means(denominator, draws, seed)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(ratios, (tail, 1.0 - tail))
    mean = strata.mean(numerator) / strata.mean(denominator)
    return Interval(mean=mean, low=min(mean, float(low)), high=max(mean, float(high)), level=level)


def sign_flip_p(
    tasks: Sequence[str], differences: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """One-sided p-value of "the mean difference is not above 0".

    Under equal quality each paired difference is as likely as its negative: exact for any number of prompts
    (randomisation test), never below 1 / (resamples + 1).
    """
    strata = Strata(tasks)
    weighted = differences * strata.weights
    moved = weighted[weighted != 0.0]
    if moved.size == 0:
        return 1.0
    signs = np.random.default_rng(seed + 2).integers(0, 2, size=(resamples, moved.size)) * 2.0 - 1.0
    reached = np.count_nonzero(signs @ moved >= moved.sum() - 1e-12)
    return (1.0 + reached) / (resamples + 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: all claims below alpha hold together at
    level alpha."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def non_inferior(difference: Interval, margin: float) -> bool:
    """The candidate is not worse by `margin` or more, at the interval's level."""
    if margin <= 0.0:
        raise ValueError(f"margin={margin}: the largest loss that does not matter must be above 0")
    return difference.low > -margin


def superior(difference: Interval) -> bool:
    """The candidate is better, at the interval's level."""
    return difference.low > 0.0


def paired(a: Measurement, b: Measurement) -> tuple[list[str], Floats, Floats]:
    """(task of each prompt, score differences a - b, [2, prompts] bytes of a and b), prompt by prompt."""
    if a.workload != b.workload:
        raise ValueError(f"measurements of different workloads ({a.workload}, {b.workload}) cannot be paired")
    left = {sample.key: sample for sample in a.samples}
    right = {sample.key: sample for sample in b.samples}
    if left.keys() != right.keys():
        odd = min(left.keys() ^ right.keys())
        raise ValueError(f"prompt {odd} is in one measurement only: measure the same prompts or `restrict`")
    keys = sorted(left)
    scores = np.array([left[key].score - right[key].score for key in keys])
    traffic = np.array([[left[key].bytes for key in keys], [right[key].bytes for key in keys]])
    return [key.task for key in keys], scores, traffic


def interval(a: Measurement, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of a measurement's accuracy."""
    samples = sorted(a.samples, key=lambda sample: sample.key)
    scores = np.array([sample.score for sample in samples])
    return score_interval([sample.task for sample in samples], scores, level, resamples, seed)


def paired_difference(
    a: Measurement, b: Measurement, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of accuracy(a) - accuracy(b). Raises ValueError unless both measured the same prompts."""
    tasks, scores, _ = paired(a, b)
    return difference_interval(tasks, scores, level, resamples, seed)


def paired_bytes_ratio(
    a: Measurement, b: Measurement, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of bytes(a) / bytes(b) per decode step. Raises ValueError unless both measured the same
    prompts."""
    tasks, _, traffic = paired(a, b)
    return ratio_interval(tasks, traffic[0], traffic[1], level, resamples, seed)


def paired_p(a: Measurement, b: Measurement, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """One-sided p-value of "a is not more accurate than b"."""
    tasks, scores, _ = paired(a, b)
    return sign_flip_p(tasks, scores, resamples, seed)
