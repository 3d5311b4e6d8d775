"""The prompts of a measurement: which there are, which are measured, and which of those make the gate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from evaluators.measure.answers import Answer
from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.samples import PREDICTION_CHARS
from evaluators.measure.spec import WorkloadSpec

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from evaluators.ruler import Prompt


class AskedPrompt(BaseModel):
    """A prompt without its text; `tokens` is how many it has."""

    model_config = ConfigDict(frozen=True)

    task: str
    index: int
    tokens: int
    answers: tuple[str, ...]
    metric: Literal["all", "part"]
    max_new_tokens: int
    source: str

    @classmethod
    def of(cls, prompt: Prompt) -> AskedPrompt:
        return cls(
            task=prompt.task,
            index=prompt.index,
            tokens=len(prompt.ids),
            answers=prompt.answers,
            metric=prompt.metric,
            max_new_tokens=prompt.max_new_tokens,
            source=prompt.source,
        )


class DenseAnswer(BaseModel):
    """What dense attention answers, and in how many tokens (the prefill's first one included)."""

    model_config = ConfigDict(frozen=True)

    prediction: str
    score: float
    tokens: int

    @classmethod
    def of(cls, answer: Answer) -> DenseAnswer:
        return cls(prediction=answer.text[:PREDICTION_CHARS], score=answer.score, tokens=answer.tokens)

    @property
    def answer(self) -> Answer:
        return Answer(self.prediction, self.score, self.tokens)


class StoredPrompt(AskedPrompt):
    """A prompt that dense attention has answered."""

    dense: DenseAnswer


P = TypeVar("P", bound=AskedPrompt)


class PromptSet(Generic[P]):
    """Prompts of one split. `key` is their identity: results are paired within one. `excluded`: tasks that
    are not measured."""

    def __init__(
        self, spec: WorkloadSpec, key: str, prompts: Sequence[P], excluded: Sequence[ExcludedTask] = ()
    ) -> None:
        self.spec = spec
        self.key = key
        self.prompts = tuple(prompts)
        self.excluded = tuple(excluded)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the prompts that are measured: those of the tasks that count."""
        left_out = {task.task for task in self.excluded}
        return tuple(i for i, prompt in enumerate(self.prompts) if prompt.task not in left_out)

    @property
    def gate(self) -> tuple[int, ...]:
        """Positions of the gate's prompts: the first ones of each task that counts."""
        return tuple(i for i in self.positions if self.prompts[i].index < self.spec.gate)

    @property
    def rest(self) -> tuple[int, ...]:
        """Positions of the other prompts that are measured."""
        return tuple(i for i in self.positions if self.prompts[i].index >= self.spec.gate)

    @property
    def tokens(self) -> int:
        """Tokens of the longest prompt."""
        return max(prompt.tokens for prompt in self.prompts)

    @property
    def sources(self) -> dict[str, str]:
        """The data that each task ran on."""
        return {prompt.task: prompt.source for prompt in self.prompts}


def dense_accuracy(prompts: Sequence[StoredPrompt]) -> dict[str, float]:
    """Dense attention's mean score of each task."""
    scores: dict[str, list[float]] = {}
    for prompt in prompts:
        scores.setdefault(prompt.task, []).append(prompt.dense.score)
    return {task: sum(values) / len(values) for task, values in scores.items()}


def generate_prompts(spec: WorkloadSpec) -> list[Prompt]:
    """All prompts of a workload, task by task; needs the model's tokenizer, not the model."""
    from evaluators.ruler import Sources, generate

    tokenizer = load_tokenizer(spec.model)
    sources = Sources(spec.essay, spec.squad, spec.hotpotqa)
    prompts: list[Prompt] = []
    for task in spec.tasks:
        prompts += generate(task, spec.length, tokenizer, spec.samples, spec.prompt_seed, sources)
    return prompts


@cache
def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer
