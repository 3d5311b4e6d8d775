"""A measurement: both objectives of one candidate, from the same prompts, lengths, plans and layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluators.measure.environment import Environment, current_environment
from evaluators.measure.samples import PromptKey, SampleResult

Split = Literal["gate", "search", "heldout"]


class ExcludedTask(BaseModel):
    """A task that does not enter the score, because dense attention itself fails it at this length."""

    model_config = ConfigDict(frozen=True)

    task: str
    dense_accuracy: float | None = Field(default=None, description="None: never measured at this length")


class Measurement(BaseModel):
    """Both objectives of one candidate on one split, with the samples they are the means of.

    `accuracy` is the mean over counted tasks of the mean over prompts; `bytes_per_step` and
    `dense_bytes_per_step` are means over the same tasks and prompts in the same way.
    """

    model_config = ConfigDict(frozen=True)

    split: Split
    workload: str
    model: str
    engine: str
    device: str
    length: int
    samples: tuple[SampleResult, ...] = Field(min_length=1)
    accuracy: float
    bytes_per_step: float
    dense_bytes_per_step: float
    tasks_counted: tuple[str, ...]
    tasks_excluded: tuple[ExcludedTask, ...] = ()
    seconds: float
    environment: Environment

    @model_validator(mode="after")
    def _objectives_are_of_the_samples(self) -> Measurement:
        if len(set(self.keys)) != len(self.samples):
            raise ValueError("a prompt occurs twice among the samples: number the prompts of a task")
        names = ("accuracy", "bytes_per_step", "dense_bytes_per_step")
        for name, mean in zip(names, means(self.samples), strict=True):
            value = getattr(self, name)
            if abs(value - mean) > 1e-6 * max(1.0, abs(mean)):
                raise ValueError(
                    f"{name}={value} is not the mean of its samples, {mean}: use `measurement_of`"
                )
        return self

    @property
    def keys(self) -> tuple[PromptKey, ...]:
        return tuple(sample.key for sample in self.samples)

    @property
    def bytes_ratio(self) -> float:
        """Bytes per decode step as a share of dense attention's."""
        return self.bytes_per_step / self.dense_bytes_per_step

    def task_accuracy(self) -> dict[str, float]:
        """Mean score of each task, in the order of first appearance."""
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for sample in self.samples:
            groups[sample.task].append(sample.score)
        return {task: sum(scores) / len(scores) for task, scores in groups.items()}

    def restrict(self, keys: Iterable[PromptKey], split: Split | None = None) -> Measurement:
        """The same measurement on fewer prompts, for example a search measurement on the gate's prompts."""
        wanted = set(keys)
        missing = wanted - set(self.keys)
        if missing:
            raise ValueError(f"{len(missing)} prompts were not measured, for example {min(missing)}")
        samples = [sample for sample in self.samples if sample.key in wanted]
        return summarise(samples, like=self, split=split or self.split, seconds=self.seconds)


def means(samples: Sequence[SampleResult]) -> tuple[float, float, float]:
    """(accuracy, bytes, dense bytes): mean over tasks of the mean over prompts."""
    groups: defaultdict[str, list[SampleResult]] = defaultdict(list)
    for sample in samples:
        groups[sample.task].append(sample)
    per_task = [
        (
            sum(s.score for s in group) / len(group),
            sum(s.bytes for s in group) / len(group),
            sum(s.dense_bytes for s in group) / len(group),
        )
        for group in groups.values()
    ]
    accuracy, traffic, dense = (sum(column) / len(per_task) for column in zip(*per_task, strict=True))
    return accuracy, traffic, dense


def measurement_of(
    samples: Sequence[SampleResult],
    *,
    split: Split,
    workload: str,
    model: str,
    engine: str,
    device: str,
    length: int,
    seconds: float,
    tasks_excluded: Sequence[ExcludedTask] = (),
    environment: Environment | None = None,
) -> Measurement:
    """The measurement that these samples make; `environment` is this process's unless given."""
    accuracy, traffic, dense = means(samples)
    return Measurement(
        split=split,
        workload=workload,
        model=model,
        engine=engine,
        device=device,
        length=length,
        samples=tuple(samples),
        accuracy=accuracy,
        bytes_per_step=traffic,
        dense_bytes_per_step=dense,
        tasks_counted=tuple(dict.fromkeys(sample.task for sample in samples)),
        tasks_excluded=tuple(tasks_excluded),
        seconds=seconds,
        environment=environment or current_environment(),
    )


def summarise(
    samples: Sequence[SampleResult], *, like: Measurement, split: Split, seconds: float
) -> Measurement:
    """A measurement of these samples with everything else as in `like`."""
    return measurement_of(
        samples,
        split=split,
        workload=like.workload,
        model=like.model,
        engine=like.engine,
        device=like.device,
        length=like.length,
        seconds=seconds,
        tasks_excluded=like.tasks_excluded,
        environment=like.environment,
    )


def combine(gate: Measurement, rest: Measurement, split: Split = "search") -> Measurement:
    """A gate measurement and one of the remaining prompts as one: what passed the gate is not decoded
    twice."""
    if gate.workload != rest.workload:
        raise ValueError(f"cannot combine measurements of two workloads ({gate.workload}, {rest.workload})")
    samples = sorted((*gate.samples, *rest.samples), key=lambda sample: sample.key)
    return summarise(samples, like=rest, split=split, seconds=gate.seconds + rest.seconds)
