from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from evaluators.ruler import generate, vt

FIRST = re.compile(r"VAR ([A-Z]{5}) = (\d{5})\.")
COPY = re.compile(r"VAR ([A-Z]{5}) = VAR ([A-Z]{5})\.")


@pytest.mark.parametrize("length", [1024, 2048])
def test_one_solved_example_and_one_chain_of_four_hops(length: int, tokenizer: Any) -> None:
    for prompt in generate("vt", length, tokenizer, 5, 3):
        example, context = prompt.text.split(vt.INTRO)[1:]
        for text, answers in ((example, None), (context, prompt.answers)):
            (name, value), *others = FIRST.findall(text)
            assert not others
            chain = [name]
            for new, old in COPY.findall(text):
                assert old == chain[-1]  # every assignment comes after the one it copies
                chain.append(new)
            assert len(set(chain)) == 5
            asked = f"Which variables hold the value {value}? Following the assignments in the text above,"
            assert f"{asked} 5 variables hold the value {value}, they are:" in text
            if answers is None:
                assert text.endswith(f"they are: {' '.join(chain)}.\n")
            else:
                assert answers == tuple(chain)
                assert text.endswith("they are:")


def test_assignments_lie_anywhere_in_the_noise() -> None:
    spots: Counter[int] = Counter()
    for seed in range(200):
        rng = random.Random(seed)
        rows = vt.scatter([vt.draw_chain(rng)], rng, 10)
        noise = 0
        for row in rows:
            noise += row.endswith(".") and len(row) > 1
            spots[noise] += row == " VAR"
    assert {spot for spot, count in spots.items() if count} == set(range(11))


def test_chains_share_no_order_but_each_keeps_its_own() -> None:
    rng = random.Random(5)
    chains = [vt.draw_chain(rng) for _ in range(3)]
    text = "".join(vt.scatter(chains, rng, 40))
    firsts = []
    for names, value in chains:
        lines = [f"VAR {names[0]} = {value}."]
        lines += [f"VAR {new} = VAR {old}." for old, new in pairwise(names)]
        places = [text.index(row) for row in lines]
        assert places == sorted(places)
        firsts.append((places[0], places[-1]))
    assert any(a[0] < b[0] < a[1] for a in firsts for b in firsts)  # they interleave


def test_the_first_chain_is_the_one_asked() -> None:
    draft = vt.draw(random.Random(2), 30, chains=3, example=False)
    value = re.search(r"hold the value (\d{5})\?", draft.text)
    assert value is not None
    assert f"VAR {draft.answers[0]} = {value[1]}." in draft.text
    assert len(FIRST.findall(draft.text)) == 3
