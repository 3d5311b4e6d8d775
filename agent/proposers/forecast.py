"""What a candidate may be worth before it is measured, learned from those that were.

A Gaussian process over accuracy, in log odds. Candidates are near one another when they move a similar share
of dense attention's bytes, in blocks of a similar size, by graphs that rank made-up blocks alike. The share
is known before any measurement, so the accuracy is all that has to be guessed.

The constants were chosen on the measured candidates of ten searches with the probe model (500 of them, by
evolution and by random draws); they are wide enough to be corrected by the first dozen measurements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.proposers.base import Known
from search_spaces.behaviour import BLOCKS, ROWS, ranking
from search_spaces.candidate import Candidate
from vortex.errors import VortexError

Floats = NDArray[np.float64]

_LEVEL, _SLOPE, _BEND, _BEND_WIDTH = 4.0, 1.0, 1.5, 0.7  # accuracy against the log of the share
_BLOCKS = 0.15  # block sizes, a factor of two being one width
_SAME, _ALIKE, _ALIKE_WIDTH = 0.1, 0.2, 0.6  # a graph's own merit, and what it shares with similar ones
_SOFT = 0.02  # keeps the odds of 0 and 1 finite
_LEAST_ERROR = 0.02  # of a measured accuracy, however narrow its interval is
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


class Forecast:
    """Of one search. `share`s are of dense attention's bytes, in (0, 1]; accuracies lie in [0, 1]."""

    def __init__(self, known: Sequence[Known], dense_accuracy: float) -> None:
        shares = np.array([row.bytes / row.dense_bytes for row in known])
        accuracy = np.array([row.accuracy for row in known])
        error = np.array([max(_LEAST_ERROR, (row.high - row.low) / 3.92) for row in known])
        steep = np.clip(accuracy, 0.05, 0.95)
        self._points = _Points([row.candidate for row in known], shares)
        self._mean = float(_odds(accuracy).mean())
        covariance = self._points.kernel(self._points) + np.diag((error / (steep * (1 - steep))) ** 2)
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ (_odds(accuracy) - self._mean)
        self._steps, self._levels = _staircase(
            np.append(shares, 1.0), np.append(_accuracy(self._predict(self._points)[0]), dense_accuracy)
        )

    def accuracy(self, candidates: Sequence[Candidate], shares: Sequence[float]) -> Floats:
        """The accuracy expected of each."""
        return _accuracy(self._predict(_Points(candidates, np.array(shares)))[0])

    def gain(self, candidates: Sequence[Candidate], shares: Sequence[float]) -> Floats:
        """The area that each is expected to add to what lies under the front (its hypervolume).

        The front is that of the accuracies expected of what was measured: a lucky measurement does not stand
        in the way of candidates near it.
        """
        at = np.array(shares)
        mean, deviation = self._predict(_Points(candidates, at))
        reached = _accuracy(mean[:, None] + deviation[:, None] * _NODES)
        widths = np.clip(self._steps[1:] - np.maximum(self._steps[:-1], at[:, None]), 0.0, None)
        above = np.clip(reached[:, :, None] - self._levels, 0.0, None)
        return np.asarray((above * widths[:, None, :]).sum(-1) @ _WEIGHTS / _WEIGHTS.sum())

    def _predict(self, points: _Points) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the log odds."""
        near = points.kernel(self._points)
        variance = points.variance() - np.einsum("ij,jk,ik->i", near, self._inverse, near)
        return self._mean + near @ self._weights, np.sqrt(np.maximum(variance, 1e-6))


class _Points:
    """Candidates as the process sees them."""

    def __init__(self, candidates: Sequence[Candidate], shares: Floats) -> None:
        self.share = np.log(np.clip(shares, 1e-3, None))
        self.block = np.log2([candidate.knobs.block_size for candidate in candidates])
        self.graph = np.array([candidate.graph.hash for candidate in candidates])
        self.order = np.array([_order(candidate) for candidate in candidates])

    def kernel(self, other: _Points) -> Floats:
        share = np.exp(-(((self.share[:, None] - other.share) / _BEND_WIDTH) ** 2) / 2)
        block = np.exp(-((self.block[:, None] - other.block) ** 2) / 2)
        alike = np.exp((self.order @ other.order.T - 1) / _ALIKE_WIDTH)
        curve = _LEVEL + _SLOPE * np.outer(self.share, other.share) + _BEND * share + _BLOCKS * block * share
        return np.asarray(curve + _SAME * (self.graph[:, None] == other.graph) + _ALIKE * alike)

    def variance(self) -> Floats:
        return np.asarray(_LEVEL + _SLOPE * self.share**2 + _BEND + _BLOCKS + _SAME + _ALIKE)


def _order(candidate: Candidate) -> Floats:
    try:
        return ranking(candidate.graph)
    except VortexError:  # one that serves no made-up sizes is like no other
        return np.zeros(ROWS * BLOCKS)


def _odds(accuracy: Floats) -> Floats:
    inside = np.clip(accuracy, 0.0, 1.0)
    return np.asarray(np.log((inside + _SOFT) / (1 + _SOFT - inside)))


def _accuracy(odds: Floats) -> Floats:
    return np.asarray(np.clip((1 + 2 * _SOFT) / (1 + np.exp(-odds)) - _SOFT, 0.0, 1.0))


def _staircase(shares: Floats, accuracy: Floats) -> tuple[Floats, Floats]:
    """The front as steps: between the n + 1 shares lie the n accuracies that are reached there."""
    steps, levels = [0.0], [0.0]
    for share, reached in sorted(zip(shares.tolist(), accuracy.tolist(), strict=True)):
        if reached > levels[-1] and share < 1.0:
            steps.append(share)
            levels.append(reached)
    return np.array([*steps, 1.0]), np.array(levels)
