"""RULER's scoring: case-insensitive substrings (arXiv 2404.06654)."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.ruler.prompt import Metric


def score(metric: Metric, prediction: str, answers: Sequence[str]) -> float:
    """Score in [0, 1]: `all` is the share of `answers` found in `prediction`, `part` is 1 if any is found."""
    if not answers:
        raise ValueError("a RULER sample needs at least one answer")
    text = prediction.lower()
    found = [answer.lower() in text for answer in answers]
    if metric == "all":
        return sum(found) / len(found)
    if metric == "part":
        return float(any(found))
    raise ValueError(f"unknown metric {metric!r}: use 'all' or 'part'")
