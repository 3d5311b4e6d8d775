"""What a task produces: drafts while the filler is fitted, prompts once it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["all", "part"]


@dataclass(frozen=True)
class Draft:
    """One drawn sample before its length is known.

    `pieces` concatenate to the prompt; every piece after the first starts at a space or a newline, or
    is punctuation, so that a tokenizer that splits there may encode piece by piece.
    `reply` is an answer in the form a model may give it (training only); `answers` is what scoring looks for.
    `prefix` is the answer prefix that the prompt ends with: under a chat template it opens the model's turn.
    """

    pieces: tuple[str, ...]
    answers: tuple[str, ...]
    reply: tuple[str, ...]
    prefix: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Prompt:
    """One RULER sample, ready to run. `len(ids) + max_new_tokens <= length`.

    `text` is all that the model reads, a chat template included; `source` names the data it was made from.
    """

    task: str
    length: int
    index: int
    text: str
    ids: tuple[int, ...]
    answers: tuple[str, ...]
    metric: Metric
    max_new_tokens: int
    source: str
