"""Common words and frequent words: how often each word stands in the text."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from evaluators.ruler import cwe, fwe, generate
from evaluators.ruler.words import all_words, word_list

ENTRY = re.compile(r" (\d+)\. (\S+)")


def listed(text: str) -> list[str]:
    """Words of a numbered list; the numbers count up from 1."""
    entries = ENTRY.findall(text)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    return [word for _, word in entries]


@pytest.mark.parametrize(("length", "common", "other"), [(1024, 6, 1), (2048, 6, 1), (4096, 30, 3)])
def test_common_words(length: int, common: int, other: int, tokenizer: Any) -> None:
    for prompt in generate("cwe", length, tokenizer, 2, 5):
        example, context = prompt.text.split("Below is a numbered list of words.")[1:]
        words, solved = listed(context), re.split(r"words are:", example)
        counts = Counter(words)
        assert {word for word, count in counts.items() if count == common} == set(prompt.answers)
        assert len(prompt.answers) == 10
        assert set(counts.values()) == {common, other}
        assert set(words[: len(words) // 2]) & set(prompt.answers)  # shuffled: on either side
        assert set(words[len(words) // 2 :]) & set(prompt.answers)
        assert set(words[:20]) - set(prompt.answers)
        # The solved example: 10 words 10 times, 30 words 3 times, and its answer.
        shown = Counter(listed(solved[0]))
        assert Counter(shown.values()) == {10: 10, 3: 30}
        assert set(listed(solved[1])) == {word for word, count in shown.items() if count == 10}


def test_lists_longer_than_the_word_lists_keep_their_frequencies() -> None:
    count = len(all_words()) + 500
    draft = cwe.draw(random.Random(0), 300 + 3 * count, length=131_072, example=False)
    counts = Counter(listed(draft.text))
    assert len(counts) == count + 10
    assert Counter(counts.values()) == {30: 10, 3: count}
    assert {word for word, times in counts.items() if times == 30} == set(draft.answers)


@pytest.mark.parametrize("length", [1024, 2048, 4096])
def test_frequent_words(length: int, tokenizer: Any) -> None:
    for prompt in generate("fwe", length, tokenizer, 6, 5):
        body = prompt.text.split("\n")[1].split()
        ranked = Counter(body).most_common()
        assert ranked[0][0] == fwe.NOISE
        assert tuple(word for word, _ in ranked[1:4]) == prompt.answers
        assert all(re.fullmatch(r"[a-z]{6}", word) for word, _ in ranked[1:])
        times = [count for _, count in ranked]
        assert times[1] > times[2] > times[3]
        assert times[3] >= times[4] + 2  # the last that counts is clear of the first that does not


@pytest.mark.parametrize("amount", [100, 101, 333, 1000, 20_000])
def test_frequencies_follow_zipf(amount: int) -> None:
    draft = fwe.draw(random.Random(1), amount)
    times = [count for _, count in Counter(draft.text.split("\n")[1].split()).most_common()]
    for rank, count in enumerate(times[:4], 1):
        exact = amount * rank**-2 / 1.6449340668482264
        assert count == int(exact)
    assert times[3] > times[4]
    assert len(times) == max(5, amount // 50)


def test_word_lists_are_plain_and_sorted() -> None:
    for kind, least in (("noun", 4000), ("adjective", 600), ("verb", 600)):
        words = word_list(kind)
        assert len(words) > least
        assert list(words) == sorted(set(words))
        assert all(re.fullmatch(r"[a-z]{3,}", word) for word in words)
    assert len(all_words()) == len(set(all_words()))
