from __future__ import annotations

import pytest

from evaluators.ruler import score


@pytest.mark.parametrize(
    ("metric", "prediction", "answers", "expected"),
    [
        ("all", " 1234567.", ("1234567",), 1.0),
        ("all", "ab CD", ("AB", "cd", "ef", "gh"), 0.5),
        ("all", "", ("a",), 0.0),
        ("all", "12345678", ("1234567",), 1.0),  # substrings count, as published
        ("all", "123456", ("1234567",), 0.0),
        ("part", "It was PARIS, I think", ("London", "Paris"), 1.0),
        ("part", "Rome", ("London", "Paris"), 0.0),
        ("all", "1 then 1", ("1", "2"), 0.5),
        ("all", "straße", ("STRASSE",), 0.0),
        ("all", "ÉCOLE", ("école",), 1.0),
    ],
)
def test_score(metric: str, prediction: str, answers: tuple[str, ...], expected: float) -> None:
    assert score(metric, prediction, answers) == expected  # type: ignore[arg-type]


def test_no_answers_and_unknown_metrics_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        score("all", "text", ())
    with pytest.raises(ValueError, match="unknown metric 'any'"):
        score("any", "text", ("a",))  # type: ignore[arg-type]
