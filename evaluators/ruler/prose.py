"""Generated prose: the default haystack, since the published essays are not ours to ship."""

from __future__ import annotations

import random
from functools import cache

from evaluators.ruler.words import word_list

PROSE_VERSION = "prose/1"
PROSE_SENTENCES = 8192

_TEMPLATES = (
    "The {a} {n} will {v} the {n}.",
    "A {n} near the {a} {n} can {v} every morning.",
    "We saw that the {n} and the {n} would {v} before noon.",
    "Nobody knows why the {a} {n} did not {v} with the {n}.",
    "In the evening they {v} the {n} under a {a} sky.",
    "Some people think the {n} is more {a} than the {n}.",
    "When it rains, the {n} must {v} and the {n} must wait.",
    "It was {a}, so the {n} began to {v} again.",
)


@cache
def prose_sentences() -> tuple[str, ...]:
    """A fixed pool of distinct short sentences (about 12 words each), the same on every machine."""
    rng = random.Random(PROSE_VERSION)
    kinds = {"n": word_list("noun"), "a": word_list("adjective"), "v": word_list("verb")}
    made: dict[str, None] = {}
    while len(made) < PROSE_SENTENCES:
        parts = rng.choice(_TEMPLATES).split("{")
        text = parts[0] + "".join(rng.choice(kinds[part[0]]) + part[2:] for part in parts[1:])
        made[text] = None
    return tuple(made)
