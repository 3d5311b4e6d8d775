"""What a search on a serving engine measures on: prompts are made here, answers by the workers' engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.executor.base import EvaluatorSpec
from evaluators.measure.measurement import Measurement
from evaluators.measure.prepare import CACHE, choose, failed_tasks, heldout_spec
from evaluators.measure.spec import WorkloadSpec
from evaluators.serving.engine import ServingOptions
from evaluators.serving.prompts import ServedPrompts, served_key
from evaluators.serving.ruler import ServedRulerSettings, ruler_spec

MeasureDense = Callable[[EvaluatorSpec], Measurement]
"""Runs one job, dense attention on all search prompts, in a worker of its own that is gone afterwards."""


@dataclass(frozen=True)
class ServedPrepared:
    """The search prompts, made; the held-out ones as a spec."""

    search: ServedPrompts
    settings: ServedRulerSettings
    identity: str

    @property
    def options(self) -> ServingOptions:
        return self.settings.options

    @property
    def heldout_key(self) -> str:
        return served_key(self.settings.heldout, self.identity)

    @property
    def evaluator(self) -> EvaluatorSpec:
        """What an executor needs."""
        return ruler_spec(self.settings)

    def open_heldout(self) -> ServedPrompts:
        given = self.settings
        return ServedPrompts.ensure(given.heldout, self.identity, given.cache, given.excluded)


def prepare_served(
    model: Path,
    options: ServingOptions,
    measure_dense: MeasureDense,
    *,
    length: int = 2048,
    samples: int = 8,
    heldout_samples: int = 8,
    gate: int = 2,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    cache: Path = CACHE,
    data: Mapping[str, str | None] | None = None,
) -> ServedPrepared:
    """Chooses the tasks as `evaluators.measure.prepare` does, and makes the search prompts.

    A model without a card is measured densely first, for that says which tasks count. The engine's cache
    is as large as all prompts together, so that each is prefilled once. Raises PrepareError.
    """
    given = {"essay": None, "squad": None, "hotpotqa": None} | dict(data or {})
    spec, excluded, known = choose(model, length, samples, gate, tasks, seed, given)
    heldout = heldout_spec(spec, excluded, heldout_samples)
    options = with_room(options, (spec, heldout))
    identity, cache = options.identity, cache.resolve()
    search = ServedPrompts.ensure(spec, identity, cache, excluded)
    settings = ServedRulerSettings(
        search=spec, heldout=heldout, cache=cache, options=options, identity=identity, excluded=excluded
    )
    if not known:
        excluded = failed_tasks(measure_dense(ruler_spec(settings)).task_accuracy())
        heldout = heldout_spec(spec, excluded, heldout_samples)
        settings = settings.model_copy(update={"heldout": heldout, "excluded": excluded})
        search = ServedPrompts.ensure(spec, identity, cache, excluded)
    return ServedPrepared(search, settings, identity)


def with_room(options: ServingOptions, specs: Sequence[WorkloadSpec]) -> ServingOptions:
    """The options with a KV cache for all prompts and their answers, unless they say how large it is. It is
    not larger, because every block of it is summarised for every candidate."""
    if options.max_total_tokens is not None:
        return options
    page = options.page_size
    tokens = sum(len(spec.tasks) * spec.samples * (spec.length + page) for spec in specs)
    return options.model_copy(update={"max_total_tokens": -(-tokens // page) * page})
