"""What a search measures on: which tasks count, the search prompts, and the held-out prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload
from evaluators.probe.card import COUNTED_FROM

CACHE = Path("runs/cache")
COUNTED = COUNTED_FROM
"""A task enters the score where dense attention reaches this accuracy: elsewhere it measures the model."""
NEEDS_DATA = {"qa_1": "squad", "qa_2": "hotpotqa"}


class PrepareError(ValueError):
    """There is nothing to measure on."""


@dataclass(frozen=True)
class Prepared:
    """The search workload, opened; the held-out one as a spec, built by whoever needs it first."""

    search: Workload
    heldout: WorkloadSpec
    excluded: tuple[ExcludedTask, ...]
    cache: Path

    def open_heldout(self) -> Workload:
        return Workload.ensure(self.heldout, self.cache, self.excluded)


def prepare(
    model: Path,
    *,
    length: int = 2048,
    samples: int = 8,
    heldout_samples: int = 8,
    gate: int = 2,
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    cache: Path = CACHE,
    essay: str | None = None,
    squad: str | None = None,
    hotpotqa: str | None = None,
) -> Prepared:
    """Chooses the tasks and builds the search workload if it is not in `cache`.

    tasks: None is every task whose data is there. Tasks that dense attention fails are excluded and
    reported: by the card of a shipped probe model, by the search prompts themselves for any other model.
    Raises PrepareError when no task is left, or the model takes no such length.
    """
    data = {"essay": essay, "squad": squad, "hotpotqa": hotpotqa}
    spec, excluded, known = choose(model, length, samples, gate, tasks, seed, data)
    search = Workload.ensure(spec, cache, excluded)
    if not known:
        excluded = failed_tasks(search.dense_accuracy())
        search = Workload.ensure(spec, cache, excluded)
    return Prepared(search, heldout_spec(spec, excluded, heldout_samples), excluded, cache)


def choose(
    model: Path,
    length: int,
    samples: int,
    gate: int,
    tasks: Sequence[str] | None,
    seed: int,
    data: Mapping[str, str | None],
) -> tuple[WorkloadSpec, tuple[ExcludedTask, ...], bool]:
    """The search prompts to make, the tasks that a card leaves out, and whether there is a card: without one
    the tasks that dense attention fails are found by its answers. Raises as `prepare` does."""
    from evaluators.ruler import task

    for name in tasks or ():
        task(name)  # raises ValueError naming the tasks there are
    longest = json.loads((model / "config.json").read_text()).get("max_position_embeddings")
    if longest and length > longest:
        raise PrepareError(f"the model takes at most {longest} tokens, not {length}: ask for fewer")
    wanted = tuple(tasks) if tasks else _tasks_with_data(data)
    known = card_accuracy(model, length)
    counted, excluded = split_tasks({task: known.get(task) for task in wanted}) if known else (wanted, ())
    if not counted:
        raise PrepareError(
            f"no task reaches {COUNTED:.0%} with dense attention at {length} tokens: choose another"
        )
    spec = WorkloadSpec(
        model=model.resolve(),
        tasks=counted,
        length=length,
        samples=samples,
        gate=max(1, min(gate, samples - 1)),  # a gate of all prompts would leave nothing to measure after it
        seed=seed,
        essay=data["essay"],
        squad=data["squad"],
        hotpotqa=data["hotpotqa"],
    )
    return spec, excluded, bool(known)


def failed_tasks(dense: Mapping[str, float]) -> tuple[ExcludedTask, ...]:
    """The tasks that dense attention fails by its own answers. Raises PrepareError when it fails all."""
    counted, excluded = split_tasks(dense)
    if not counted:
        raise PrepareError(f"dense attention reaches {COUNTED:.0%} in no task: {dict(dense)}")
    return excluded


def heldout_spec(spec: WorkloadSpec, excluded: Sequence[ExcludedTask], samples: int) -> WorkloadSpec:
    """The held-out prompts that go with these search prompts."""
    left_out = {task.task for task in excluded}
    return spec.heldout([task for task in spec.tasks if task not in left_out], samples)


def split_tasks(
    dense: Mapping[str, float | None],
) -> tuple[tuple[str, ...], tuple[ExcludedTask, ...]]:
    """Tasks that count, and those that do not with dense attention's accuracy (None: never measured)."""
    counted = tuple(task for task, accuracy in dense.items() if accuracy is not None and accuracy >= COUNTED)
    excluded = (ExcludedTask(task=t, dense_accuracy=a) for t, a in dense.items() if t not in counted)
    return counted, tuple(excluded)


def card_accuracy(model: Path, length: int) -> Mapping[str, float]:
    """Dense accuracy by task from a probe model's card; empty for other models and lengths not measured."""
    from evaluators.probe.card import card
    from evaluators.probe.load import shipped

    return card(model / "card.json").accuracy(length) if shipped(model) else {}


def _tasks_with_data(data: Mapping[str, str | None]) -> tuple[str, ...]:
    from evaluators.ruler import TASKS

    return tuple(task for task in TASKS if task not in NEEDS_DATA or data[NEEDS_DATA[task]])
