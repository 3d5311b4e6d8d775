"""From new tokens to text and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evaluators.ruler.prompt import Metric


class Asked(Protocol):
    """A prompt, as far as scoring needs it."""

    @property
    def answers(self) -> tuple[str, ...]: ...

    @property
    def metric(self) -> Metric: ...


class Answer(NamedTuple):
    """What a model said to a prompt; `tokens` counts the prefill's first one."""

    text: str
    score: float
    tokens: int


def scored(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Asked], tokens: Sequence[Sequence[int]]
) -> list[Answer]:
    """The answers that these new `tokens` of each prompt are."""
    from evaluators.ruler import score

    texts = [tokenizer.decode(list(new), skip_special_tokens=True) for new in tokens]
    return [
        Answer(text, score(prompt.metric, text, prompt.answers), len(new))
        for prompt, text, new in zip(prompts, texts, tokens, strict=True)
    ]
