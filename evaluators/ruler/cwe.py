"""Common words: a shuffled numbered list in which ten words are far more frequent than the others."""

from __future__ import annotations

import random

from evaluators.ruler.prompt import Draft
from evaluators.ruler.words import all_words, word_list

COMMON = 10
EXAMPLE_WORDS = 40

_INTRO = "Below is a numbered list of words. Memorize the words that appear most often in it.\n"


def draw(rng: random.Random, amount: int, *, length: int, example: bool = True) -> Draft:
    """One sample whose list holds at most `amount` entries.

    Common words appear 30 times and the others 3 times; 6 and 1 times in lists below 4,096 tokens (`length`);
    the solved example always has 40 words, 10 and 3 times.
    """
    common, other = (30, 3) if length >= 4096 else (6, 1)
    before: tuple[str, ...] = ()
    if example:
        solved = solved_example(rng)
        before = (*solved.pieces, *solved.reply, "\n")
    words = COMMON + max(1, (amount - COMMON * common) // other)
    sample = _sample(rng, words, common, other)
    return Draft(before + sample.pieces, sample.answers, sample.reply, sample.prefix)


def solved_example(rng: random.Random) -> Draft:
    return _sample(rng, EXAMPLE_WORDS, 10, 3)


def distinct_words(rng: random.Random, count: int) -> list[str]:
    """`count` words in random order. Prompts of 128K tokens outgrow the word lists: compounds join them."""
    known = all_words()
    if count <= len(known):
        return rng.sample(known, count)
    words = dict.fromkeys(known)
    while len(words) < count:
        words[f"{rng.choice(word_list('adjective'))}-{rng.choice(word_list('noun'))}"] = None
    return rng.sample(list(words), count)


def _sample(rng: random.Random, words: int, common: int, other: int) -> Draft:
    chosen = distinct_words(rng, words)
    # Replies list the words in alphabetical order: one right answer a step, which a small model can learn.
    answers = sorted(chosen[:COMMON])
    entries = answers * common + chosen[COMMON:] * other
    rng.shuffle(entries)
    pieces = [_INTRO]
    for number, word in enumerate(entries, 1):
        pieces += [f" {number}.", f" {word}"]
    prefix = f" The {COMMON} most common words are:"
    pieces.append(f"\nWhich {COMMON} words are the most common in the list above?{prefix}")
    reply = [piece for number, word in enumerate(answers, 1) for piece in (f" {number}.", f" {word}")]
    return Draft(tuple(pieces), tuple(answers), tuple(reply), prefix)
