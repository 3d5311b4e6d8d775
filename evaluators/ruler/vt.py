"""Variable tracking: one chain of assignments hidden in noise, one solved example first."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from itertools import pairwise

from evaluators.ruler.noise import NOISE_SENTENCES
from evaluators.ruler.prompt import Draft

HOPS = 4
EXAMPLE_FILLER = 5

INTRO = "Remember the chains of variable assignment hidden in the text below.\n"


def draw(rng: random.Random, amount: int, *, chains: int = 1, example: bool = True) -> Draft:
    """One sample with `amount` filler sentences around `chains` chains; the first chain is asked."""
    before: tuple[str, ...] = ()
    if example:
        names, value = draw_chain(rng)
        solved = question((INTRO, *scatter([(names, value)], rng, EXAMPLE_FILLER)), names, value)
        before = (*solved.pieces, *solved.reply, "\n")
    made = [draw_chain(rng) for _ in range(chains)]
    names, value = made[0]
    return question((*before, INTRO, *scatter(made, rng, amount)), names, value)


def draw_chain(rng: random.Random) -> tuple[tuple[str, ...], str]:
    """HOPS + 1 distinct names of five capitals, and the five-digit value the first is given."""
    names: dict[str, None] = {}
    while len(names) < HOPS + 1:
        names["".join(rng.choices(string.ascii_uppercase, k=5))] = None
    return tuple(names), str(rng.randint(10_000, 99_999))


def scatter(
    chains: Sequence[tuple[tuple[str, ...], str]], rng: random.Random, amount: int
) -> tuple[str, ...]:
    """Assignments at random ordered positions of the noise; chains are dealt independently of one another."""
    spots: list[tuple[int, tuple[str, ...]]] = []
    for names, value in chains:
        lines = [(" VAR", f" {names[0]}", " =", f" {value}", ".")]
        lines += [(" VAR", f" {new}", " = VAR", f" {old}", ".") for old, new in pairwise(names)]
        where = sorted(rng.randint(0, amount) for _ in lines)
        spots += list(zip(where, lines, strict=True))
    spots.sort(key=lambda spot: spot[0])
    rows: list[str] = []
    taken = 0
    for at in range(amount + 1):
        while taken < len(spots) and spots[taken][0] == at:
            rows += spots[taken][1]
            taken += 1
        if at < amount:
            rows.append(f" {NOISE_SENTENCES[at % len(NOISE_SENTENCES)]}")
    return tuple(rows)


def question(context: tuple[str, ...], names: tuple[str, ...], value: str) -> Draft:
    """Asks for the variables that hold `value` after `context`."""
    before = f" Following the assignments in the text above, {HOPS + 1} variables hold the value"
    ask = ("\nWhich variables hold the value", f" {value}", f"?{before}", f" {value}", ", they are:")
    prefix = f"{before} {value}, they are:"
    return Draft((*context, *ask), names, (*(f" {name}" for name in names), "."), prefix)
