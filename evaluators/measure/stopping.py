"""When a generated answer needs no further token, because its score can no longer change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Decoder(Protocol):
    """The tokenizer, as far as reading an answer needs it."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...


class AnswerWatch:
    """Stops rows whose score is settled; the score is then exactly that of the full generation.

    RULER's score asks which references occur in the text. A reference that was found stays found, so a row is
    complete when all are found (metric "part": any). A missing one can no longer come when even tokens of the
    greatest length could not spell the rest of it.
    """

    def __init__(
        self,
        tokenizer: Decoder,
        answers: Sequence[Sequence[str]],
        metrics: Sequence[str],
        limits: Sequence[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._answers = [[answer.lower() for answer in row] for row in answers]
        self._any = [metric == "part" for metric in metrics]
        self._limits = limits
        self._longest = longest_piece(tokenizer)

    def __call__(self, row: int, tokens: list[int]) -> bool:
        """The row's score is settled by its new `tokens`."""
        text = self._tokenizer.decode(tokens, skip_special_tokens=True).lower()
        missing = [answer for answer in self._answers[row] if answer not in text]
        if not missing or (self._any[row] and len(missing) < len(self._answers[row])):
            return True
        room = (self._limits[row] - len(tokens)) * self._longest
        return all(len(answer) - begun(text, answer) > room for answer in missing)


def needed(watch: AnswerWatch, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Of each row's tokens, those until its score was settled: what an engine that cannot be stopped by a
    watch would have generated under one."""
    ends = (
        next((end for end in range(1, len(tokens)) if watch(row, list(tokens[:end]))), len(tokens))
        for row, tokens in enumerate(rows)
    )
    return [list(tokens[:end]) for tokens, end in zip(rows, ends, strict=True)]


def begun(text: str, answer: str) -> int:
    """How many characters of `answer` the end of `text` has already."""
    for size in range(min(len(text), len(answer) - 1), 0, -1):
        if text.endswith(answer[:size]):
            return size
    return 0


def longest_piece(tokenizer: Decoder) -> int:
    """Upper bound of the characters that one token adds to a text."""
    return max(max(len(piece), len(piece.lower())) for piece in tokenizer.get_vocab())
