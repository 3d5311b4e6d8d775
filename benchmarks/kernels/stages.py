"""Which stage of a decode step a kernel belongs to, by its name."""

from __future__ import annotations

STAGES = {"topk": "top-k", "select": "top-k", "decode": "attention", "prologue": "prologue"}


def stage(kernel: str) -> str:
    """`prologue`, `score`, `top-k` or `attention`."""
    return next((part for text, part in STAGES.items() if text in kernel), "score")
