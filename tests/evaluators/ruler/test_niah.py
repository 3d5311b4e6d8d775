from __future__ import annotations

import random
import re
import uuid
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from evaluators.ruler import generate
from evaluators.ruler.niah import DEPTHS, Needle, Niah, draw, draw_needles, join_keys, line, scatter
from evaluators.ruler.noise import NOISE_SENTENCES
from evaluators.ruler.prose import prose_sentences
from evaluators.ruler.tasks import NIAH

NEEDLE = re.compile(r"One of the special magic (number|uuid)s for (\S+) is: (\S+)\.(?= |\n)")
ASKED = re.compile(r"\nWhat (is|are all) the special magic (\w+) for (.+) mentioned in the provided text\?")
WORD_KEY, NUMBER = re.compile(r"[a-z]{3,}-[a-z]{3,}"), re.compile(r"[1-9]\d{6}")


def is_kind(kind: str, text: str) -> bool:
    if kind == "uuid":
        return str(uuid.UUID(text)) == text and uuid.UUID(text).version == 4
    return bool((WORD_KEY if kind == "word" else NUMBER).fullmatch(text))


def asked_keys(text: str) -> list[str]:
    found = ASKED.search(text)
    assert found is not None
    return re.split(r",? and |, ", found[3])


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("name", NIAH)
def test_needles_keys_and_values(name: str, length: int, tokenizer: Any) -> None:
    spec = NIAH[name]
    for prompt in generate(name, length, tokenizer, 4, 11):
        needles = [(key, value) for kind, key, value in NEEDLE.findall(prompt.text) if kind == spec.value]
        keys = asked_keys(prompt.text)
        assert len(keys) == len(set(keys)) == spec.queries
        assert all(is_kind(spec.key, key) and is_kind(spec.value, value) for key, value in needles)
        by_key = Counter(key for key, _ in needles)
        assert all(by_key[key] == spec.values for key in keys)
        if spec.haystack == "needle":
            assert len(by_key) > 4
            assert not [s for s in NOISE_SENTENCES if s in prompt.text]
        else:
            assert len(by_key) == spec.keys
            assert len(needles) == spec.keys * spec.values
        # Answers are the values of the asked keys: by key as asked, then in the order of the text.
        assert list(prompt.answers) == [v for asked in keys for key, v in needles if key == asked]
        assert all(prompt.text.count(value) == 1 for value in prompt.answers)


@pytest.mark.parametrize("name", NIAH)
def test_wording_follows_the_number_of_answers(name: str, tokenizer: Any) -> None:
    spec = NIAH[name]
    text = generate(name, 1024, tokenizer, 1, 0)[0].text
    plural = spec.values * spec.queries > 1
    keys = "".join(join_keys(asked_keys(text)))
    kind, verb = (f"{spec.value}s", "are") if plural else (spec.value, "is")
    ask = "are all" if plural else "is"
    some = f"Some special magic {spec.value}s are hidden" if plural else f"A special magic {kind} is hidden"
    assert text.startswith(some)
    assert text.endswith(
        f"\nWhat {ask} the special magic {kind} for{keys} mentioned in the provided text?"
        f" The special magic {kind} for{keys} mentioned in the provided text {verb}"
    )
    if spec.queries == 4:
        assert re.fullmatch(r" \S+, \S+, \S+, and \S+", keys)


def test_essay_needles_sit_at_distinct_depths_of_forty_evenly_spaced() -> None:
    spec, amount = NIAH["niah_multikey_1"], 10 * (DEPTHS - 1)
    seen: Counter[int] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        pieces, placed = scatter(spec, draw_needles(spec, rng), rng, amount, prose_sentences())
        before, spots = 0, []
        for piece in pieces:
            if piece == " One of the special magic numbers for":
                spots.append(before)
            before += piece.endswith(".") and len(piece) > 1
        assert len(placed) == len(set(spots)) == 4
        assert all(spot % 10 == 0 for spot in spots)
        seen.update(spot // 10 for spot in spots)
    assert set(seen) == set(range(DEPTHS))  # both ends of the text included
    assert max(seen.values()) < 3 * min(seen.values())


def test_the_values_of_one_key_are_spread_over_depths() -> None:
    spec = NIAH["niah_multivalue"]
    text = draw(spec, random.Random(1), 390, prose_sentences()).text
    places = [found.start() for found in NEEDLE.finditer(text)]
    assert len(places) == 4
    assert all(after - before > 300 for before, after in pairwise(places))


@pytest.mark.parametrize("name", ["niah_single_1", "niah_multikey_2"])
def test_noise_and_needle_haystacks_take_any_line(name: str) -> None:
    spec, spots = NIAH[name], []
    for seed in range(400):
        rng = random.Random(seed)
        needle = draw_needles(spec, rng)
        pieces, _ = scatter(spec, needle, rng, 20, ())
        lines = " ".join("".join(pieces).split()).split(". ")
        spots.append(next(i for i, row in enumerate(lines) if needle[0].key in row))
    assert set(spots) == set(range(21))


def test_noise_repeats_its_five_sentences_in_order() -> None:
    text = draw(NIAH["niah_single_1"], random.Random(0), 12, ()).text
    rest = text.split("\n")[1]
    filler = NEEDLE.sub("", rest + " ").split()
    assert filler == " ".join(NOISE_SENTENCES[i % 5] for i in range(12)).split()


def test_no_distractor_has_the_key_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {"adjective": ("red", "blue"), "noun": ("fox", "hen")}
    monkeypatch.setattr("evaluators.ruler.niah.word_list", lists.__getitem__)
    spec = Niah("needle", "word", "number")
    for seed in range(30):
        text = draw(spec, random.Random(seed), 25, ()).text
        assert [key for _, key, _ in NEEDLE.findall(text)].count(asked_keys(text)[0]) == 1


def test_the_needle_says_its_type_in_the_plural() -> None:
    spec = Niah("noise", "word", "uuid")
    assert "".join(line(spec, Needle("red-fox", "x"))) == " One of the special magic uuids for red-fox is: x."


def test_join_keys() -> None:
    assert "".join(join_keys(["a"])) == " a"
    assert "".join(join_keys(["a", "b"])) == " a and b"
    assert "".join(join_keys(["a", "b", "c"])) == " a, b, and c"
