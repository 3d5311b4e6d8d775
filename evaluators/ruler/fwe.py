"""Frequent words: coded words with Zipf frequencies; rank 1 is noise, ranks 2 to 4 are the answer."""

from __future__ import annotations

import random
import string

from evaluators.ruler.prompt import Draft

ALPHA = 2.0
_ZETA_2 = 1.6449340668482264
NOISE = "..."

_INTRO = "Read the coded text below and keep count of how often each coded word appears. Ignore the dots.\n"
_PREFIX = " The three most frequent words are:"


def draw(rng: random.Random, amount: int) -> Draft:
    """One sample of about `amount` words; rank k appears amount * k**-2 / zeta(2) times."""
    vocabulary = max(5, amount // 50)
    coded: dict[str, None] = {}
    while len(coded) < vocabulary:
        coded["".join(rng.choices(string.ascii_lowercase, k=6))] = None
    ranked = [NOISE, *list(coded)[1:]]
    words: list[str] = []
    for rank, word in enumerate(ranked, 1):
        words += [f" {word}"] * max(1 if rank > 4 else 5 - rank, int(amount * rank**-ALPHA / _ZETA_2))
    rng.shuffle(words)
    answers = tuple(ranked[1:4])
    ask = f"\nWhich three coded words appear most often in the text above?{_PREFIX}"
    return Draft((_INTRO, *words, ask), answers, (*(f" {word}" for word in answers), "."), _PREFIX)
