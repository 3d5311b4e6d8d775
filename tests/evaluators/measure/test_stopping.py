from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluators.measure.stopping import AnswerWatch, begun, needed


class Letters:
    """One token a letter, or two: token i is the i-th piece."""

    pieces = (*"abcdefghijklmnopqrstuvwxyz0123456789 ", "ab", "XY")

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return "".join(self.pieces[i] for i in token_ids)

    def get_vocab(self) -> dict[str, int]:
        return {piece: i for i, piece in enumerate(self.pieces)}

    def ids(self, text: str) -> list[int]:
        return [self.pieces.index(letter) for letter in text]


def stops_at(text: str, answers: tuple[str, ...], limit: int, metric: str = "all") -> int | None:
    """After how many tokens the row ends."""
    letters = Letters()
    watch = AnswerWatch(letters, [answers], [metric], [limit])
    ids = letters.ids(text)
    return next((n for n in range(1, len(ids) + 1) if watch(0, ids[:n])), None)


@pytest.mark.parametrize(
    ("text", "answers", "limit", "metric", "expected"),
    [
        ("xx 123 yy", ("123",), 40, "all", 6),  # complete
        ("123 45", ("123", "45"), 40, "all", 6),  # all of them
        ("123 45", ("123", "45"), 40, "part", 3),  # any of them
        ("no", ("NO",), 40, "all", 2),  # case does not count
        ("zzzzzzzz", ("1234567890",), 10, "all", 6),  # 4 tokens of two letters cannot spell ten
        ("zzz123456", ("1234567890",), 12, "all", None),  # begun: the rest may still come
        ("zzzzzzz", ("1", "1234567890"), 10, "all", None),  # one of them may still come
    ],
)
def test_a_row_stops_when_its_score_is_settled(
    text: str, answers: tuple[str, ...], limit: int, metric: str, expected: int | None
) -> None:
    assert stops_at(text, answers, limit, metric) == expected


def test_begun() -> None:
    assert begun("abcab", "abd") == 2
    assert begun("abc", "xyz") == 0
    assert begun("", "xyz") == 0


def test_what_was_generated_beyond_a_settled_score_does_not_count() -> None:
    letters = Letters()
    watch = AnswerWatch(letters, [["123"], ["123"]], ["all", "all"], [40, 40])
    rows = [letters.ids("xx 123 yy"), letters.ids("xx 12")]
    assert needed(watch, rows) == [letters.ids("xx 123"), letters.ids("xx 12")]
    assert needed(watch, [[], []]) == [[], []]
