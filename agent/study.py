"""Optuna's part: a multi-objective TPE study over the knobs, with the accuracy floor as a constraint.

The ledger is the truth; the study lives in memory and is rebuilt from measurements. It sees a bounded window
of them, the front and the newest: the cost of a suggestion grows with what it sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.knobs import Knobs, KnobSpace
from search_spaces.objectives import DIRECTIONS, Objectives, dominates

WINDOW = 100
STARTUP = 10
_REBUILD = 32  # suggestions after which trials that left the window are dropped
_ORDERED = ("topk_val", "block_size", "topk_ratio", "bos", "eos")
_UNORDERED = ("layers_skip", "policy")

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Told:
    """One measurement as the study keeps it: accuracy in [0, 1], bytes per decode step."""

    knobs: Knobs
    accuracy: float
    bytes: float


class KnobStudy:
    """Suggests knobs. `tell` and `suggest` may be called from different threads.

    Args:
        dense_accuracy: of the same prompts; the floor lies below it.
        seed: of the run. `told` measurements and the seed decide the next suggestions.
    """

    def __init__(
        self,
        space: KnobSpace,
        objectives: Objectives,
        dense_accuracy: float,
        seed: int,
        told: Sequence[Told] = (),
        window: int = WINDOW,
    ) -> None:
        self._objectives = objectives
        self._dense_accuracy = dense_accuracy
        self._seed = seed
        self._window = window
        self._menus = menus(space)
        # Positions in menus: categories cost TPE half of what numbers do, and the menus are short.
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(range(len(menu)))) for name, menu in self._menus.items()
        }
        self._front: list[Told] = []
        self._recent: deque[Told] = deque(maxlen=window)
        self._asked = 0
        self._news: deque[Told] = deque()  # told since the last suggestion, which is made in another thread
        for one in told:
            self._keep(one)
        self._study = self._rebuilt()

    def suggest(self) -> Knobs:
        """The next knobs to try."""
        while self._news:
            self._learn(self._news.popleft())
        if self._asked % _REBUILD == 0:
            self._study = self._rebuilt()
        self._asked += 1
        # The trial stays unfinished, which TPE ignores: the proposer may choose other knobs than these, and
        # what is told is what was measured, as a trial of its own.
        return self._knobs(self._study.ask(self._distributions).params)

    def tell(self, knobs: Knobs, accuracy: float, traffic: float) -> None:
        """Learn from a measurement. Knobs with a policy or layers outside the menus teach nothing here."""
        self._news.append(Told(knobs, accuracy, traffic))

    def _learn(self, told: Told) -> None:
        self._keep(told)
        trial = self._trial(told)
        if trial is not None:
            self._study.add_trial(trial)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The completed trials that the next suggestion is made from."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _keep(self, told: Told) -> None:
        self._recent.append(told)
        if not any(dominates(other, told) for other in self._front):
            kept = [other for other in self._front if not dominates(told, other)]
            self._front = [*kept[-self._window + 1 :], told]

    def _rebuilt(self) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(
            seed=(self._seed * 1_000_003 + self._asked + len(self._recent)) % 2**32,
            multivariate=True,
            n_startup_trials=STARTUP,
        )
        study = optuna.create_study(
            directions=[optuna.study.StudyDirection[name.upper()] for name in DIRECTIONS], sampler=sampler
        )
        recent = list(self._recent)
        kept = [told for told in self._front if not any(told is other for other in recent)] + recent
        study.add_trials([trial for told in kept if (trial := self._trial(told)) is not None])
        return study

    def _trial(self, told: Told) -> FrozenTrial | None:
        params = self._params(told.knobs)
        if params is None:
            return None
        return create_trial(
            params=params,
            distributions=self._distributions,
            values=[told.accuracy, told.bytes],
            constraints={"accuracy floor": self._objectives.constraint(told.accuracy, self._dense_accuracy)},
        )

    def _params(self, knobs: Knobs) -> dict[str, int] | None:
        params: dict[str, int] = {}
        for name in _ORDERED:
            menu, value = self._menus[name], getattr(knobs, name)
            params[name] = min(range(len(menu)), key=lambda i: abs(menu[i] - value))
        for name in _UNORDERED:
            menu, value = self._menus[name], getattr(knobs, name)
            if value not in menu:
                return None
            params[name] = menu.index(value)
        return params

    def _knobs(self, params: Mapping[str, int]) -> Knobs:
        return Knobs(**{name: menu[params[name]] for name, menu in self._menus.items()})


def menus(space: KnobSpace) -> dict[str, tuple[Any, ...]]:
    """The values suggested for each knob: topk_val in steps of about a quarter, the others as they are."""
    steps = [space.topk_low]
    while steps[-1] < space.topk_high:
        steps.append(min(space.topk_high, max(steps[-1] + 1, round(steps[-1] * 1.25))))
    return {"topk_val": tuple(steps)} | {n: getattr(space, n) for n in (*_ORDERED[1:], *_UNORDERED)}
