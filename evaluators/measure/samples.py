"""One prompt's result, and the identity by which results of different candidates are paired."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

PREDICTION_CHARS = 200


class PromptKey(NamedTuple):
    """Identity of a prompt within a split: two measurements are compared prompt by prompt through it."""

    task: str
    prompt: int


class SampleResult(BaseModel):
    """What one candidate did on one prompt.

    score: share of the references found, in [0, 1] (RULER's metric of the task).
    bytes: attention traffic of the whole model in one decode step, mean over the prompt's reference steps.
    dense_bytes: the same for dense attention.
    new_tokens: tokens generated before the row stopped.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    prompt: int = Field(ge=0)
    score: float = Field(ge=0.0, le=1.0)
    bytes: float = Field(ge=0.0)
    dense_bytes: float = Field(gt=0.0)
    new_tokens: int = Field(ge=0)
    prediction: str = Field(max_length=PREDICTION_CHARS)

    @property
    def key(self) -> PromptKey:
        return PromptKey(self.task, self.prompt)
