"""Words for keys and lists, from the `wonderwords` package (MIT), filtered once."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

# Part of every prompt's identity: change it whenever the filter or the lists change.
WORDS_VERSION = "wonderwords-3/lower-3plus/1"
_PLAIN = re.compile(r"[a-z]{3,}")


def _read(name: str) -> list[str]:
    return (files("wonderwords.assets") / f"{name}.txt").read_text().split("\n")


@cache
def word_list(kind: str) -> tuple[str, ...]:
    """Sorted plain lower-case words of `kind` ("noun", "adjective" or "verb"), profanity removed."""
    refused = {word.lower() for word in _read("profanitylist")}
    return tuple(sorted({word for word in _read(f"{kind}list") if _PLAIN.fullmatch(word)} - refused))


@cache
def all_words() -> tuple[str, ...]:
    """Every word of the three lists once, sorted: what common-word lists are drawn from."""
    return tuple(sorted({word for kind in ("noun", "adjective", "verb") for word in word_list(kind)}))
