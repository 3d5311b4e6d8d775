"""Needle in a haystack: the eight NIAH tasks (parameters of RULER's synthetic.yaml)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluators.ruler.noise import NOISE_SENTENCES
from evaluators.ruler.prompt import Draft
from evaluators.ruler.words import word_list

Kind = Literal["word", "number", "uuid"]
DEPTHS = 40


@dataclass(frozen=True)
class Niah:
    """Parameters of one NIAH task: `keys` k, `values` v a key, `queries` q keys asked."""

    haystack: Literal["noise", "essay", "needle"]
    key: Kind
    value: Kind
    keys: int = 1
    values: int = 1
    queries: int = 1

    @property
    def plural(self) -> bool:
        return self.queries * self.values > 1


@dataclass(frozen=True)
class Needle:
    key: str
    value: str


def draw(
    task: Niah, rng: random.Random, amount: int, sentences: Sequence[str], running: bool = False
) -> Draft:
    """One sample with `amount` units of filler (sentences, or distractor needles).

    Essay haystacks take `sentences` in random order or, where they are `running` text, from the beginning on.
    """
    needles = draw_needles(task, rng)
    asked = list(dict.fromkeys(needle.key for needle in needles))[: task.queries]
    haystack, placed = scatter(task, needles, rng, amount, sentences, running)
    return ask(task, placed, asked, intro(task) + haystack)


def draw_needles(task: Niah, rng: random.Random) -> list[Needle]:
    keys: dict[str, None] = {}
    while len(keys) < max(task.keys, task.queries):
        keys[random_text(task.key, rng)] = None
    return [Needle(key, random_text(task.value, rng)) for key in keys for _ in range(task.values)]


def random_text(kind: Kind, rng: random.Random) -> str:
    if kind == "number":
        return str(rng.randint(1_000_000, 9_999_999))
    if kind == "uuid":
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return f"{rng.choice(word_list('adjective'))}-{rng.choice(word_list('noun'))}"


def intro(task: Niah) -> tuple[str, ...]:
    if task.plural:
        return (
            f"Some special magic {task.value}s are hidden in the text below."
            f" Remember them, you will be asked about the {task.value}s afterwards.\n",
        )
    return (
        f"A special magic {task.value} is hidden in the text below."
        f" Remember it, you will be asked about the {task.value} afterwards.\n",
    )


def line(task: Niah, needle: Needle) -> tuple[str, ...]:
    """The needle; the type word is always plural in it."""
    return (f" One of the special magic {task.value}s for", f" {needle.key}", " is:", f" {needle.value}", ".")


def scatter(
    task: Niah,
    needles: Sequence[Needle],
    rng: random.Random,
    amount: int,
    sentences: Sequence[str],
    running: bool = False,
) -> tuple[tuple[str, ...], list[Needle]]:
    """The haystack of `amount` units with the needles in it, and the needles in its order."""
    filler: list[tuple[str, ...]]
    if task.haystack == "essay":
        if running:  # text that is too short begins anew
            filler = [(f" {sentences[i % len(sentences)]}",) for i in range(amount)]
        else:
            filler = [(f" {rng.choice(sentences)}",) for _ in range(amount)]
        depths = rng.sample(range(DEPTHS), min(len(needles), DEPTHS))
        depths += rng.choices(range(DEPTHS), k=len(needles) - len(depths))
        spots = [depth * amount // (DEPTHS - 1) for depth in depths]
    else:
        if task.haystack == "noise":
            filler = [(f" {NOISE_SENTENCES[i % len(NOISE_SENTENCES)]}",) for i in range(amount)]
        else:
            keys = {needle.key for needle in needles}
            filler = [line(task, _distractor(task, rng, keys)) for _ in range(amount)]
        spots = [rng.randint(0, amount) for _ in needles]
    order = list(needles)
    rng.shuffle(order)
    pieces: list[str] = []
    done = 0
    for spot, needle in zip(sorted(spots), order, strict=True):
        pieces += [piece for row in filler[done:spot] for piece in row] + list(line(task, needle))
        done = spot
    return (*pieces, *(piece for row in filler[done:] for piece in row)), order


def _distractor(task: Niah, rng: random.Random, taken: Collection[str]) -> Needle:
    """A needle that no question is about: a second value of an asked key would be as right as the first."""
    key = random_text(task.key, rng)
    while key in taken:
        key = random_text(task.key, rng)
    return Needle(key, random_text(task.value, rng))


def ask(task: Niah, placed: Sequence[Needle], asked: Sequence[str], context: tuple[str, ...]) -> Draft:
    """The question about the keys `asked` after `context`; values keep the order of `placed`."""
    values = {key: [needle.value for needle in placed if needle.key == key] for key in asked}
    plural = sum(map(len, values.values())) > 1
    kind = f"{task.value}s" if plural else task.value
    before = f"\nWhat {'are all' if plural else 'is'} the special magic {kind} for"
    restated = f" The special magic {kind} for"
    keys = join_keys(asked)
    end = f" mentioned in the provided text {'are' if plural else 'is'}"
    pieces = (*context, before, *keys, f" mentioned in the provided text?{restated}", *keys, end)
    answers = tuple(value for found in values.values() for value in found)
    return Draft(pieces, answers, _reply(values), "".join((restated, *keys, end)))


def join_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """`A`, `A and B`, or `A, B, and C`, as pieces."""
    if len(keys) == 1:
        return (f" {keys[0]}",)
    pieces: list[str] = []
    for key in keys[:-1]:
        pieces += [f" {key}"] + ([","] if len(keys) > 2 else [])
    return (*pieces, " and", f" {keys[-1]}")


def _reply(values: dict[str, list[str]]) -> tuple[str, ...]:
    """One key: its values. Several keys: each key is restated before its values."""
    pieces: list[str] = []
    for key, found in values.items():
        if len(values) > 1:
            pieces += [f" {key}", ":"]
        for value in found:
            pieces += [f" {value}", ","]
    return (*pieces[:-1], ".")
