"""The 13 tasks of RULER by name, and the search for the amount of filler that fills a length."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from evaluators.ruler import cwe, fwe, niah, qa, vt
from evaluators.ruler.niah import Niah
from evaluators.ruler.prompt import Draft, Metric, Prompt
from evaluators.ruler.render import Tokenizer, render
from evaluators.ruler.sources import Sources

Draw = Callable[[random.Random, int], Draft]


class LengthError(ValueError):
    """A task does not fit the length asked for, even with the least filler."""


@dataclass(frozen=True)
class Task:
    """A task's fixed part: its metric, its new tokens, and the least filler it makes sense with."""

    name: str
    max_new_tokens: int
    metric: Metric
    least: int


NIAH: dict[str, Niah] = {
    "niah_single_1": Niah("noise", "word", "number"),
    "niah_single_2": Niah("essay", "word", "number"),
    "niah_single_3": Niah("essay", "word", "uuid"),
    "niah_multikey_1": Niah("essay", "word", "number", keys=4),
    "niah_multikey_2": Niah("needle", "word", "number"),
    "niah_multikey_3": Niah("needle", "uuid", "uuid"),
    "niah_multivalue": Niah("essay", "word", "number", values=4),
    "niah_multiquery": Niah("essay", "word", "number", keys=4, queries=4),
}
_TASKS = (
    *(Task(name, 128, "all", 1) for name in NIAH),
    Task("vt", 30, "all", 5),
    Task("cwe", 120, "all", 70),
    Task("fwe", 50, "all", 100),
    Task("qa_1", 32, "part", 1),
    Task("qa_2", 32, "part", 1),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}


def task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"unknown RULER task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def drawer(name: str, length: int, sources: Sources) -> tuple[Draw, str]:
    """The function that draws one sample for an amount of filler, and the name of its data."""
    if name in NIAH:
        parameters = NIAH[name]
        if parameters.haystack != "essay":
            return lambda rng, amount: niah.draw(parameters, rng, amount, ()), "synthetic"
        hay = sources.haystack()
        return lambda rng, amount: niah.draw(parameters, rng, amount, hay.sentences, hay.running), hay.source
    if name == "vt":
        return vt.draw, "synthetic"
    if name == "cwe":
        return lambda rng, amount: cwe.draw(rng, amount, length=length), "synthetic"
    if name == "fwe":
        return fwe.draw, "synthetic"
    data, source = sources.documents(name)
    return lambda rng, amount: qa.draw(rng, amount, data), source


def generate(
    name: str, length: int, tokenizer: Tokenizer, samples: int, seed: int, sources: Sources | None = None
) -> list[Prompt]:
    """`samples` prompts of one task, deterministic in (task, length, tokenizer, seed, sources).

    Every prompt's tokens plus the task's new tokens fit `length`. Raises LengthError where the least prompt
    does not fit, SourceError where the task's data is missing.
    """
    fixed, (draw, source) = task(name), drawer(name, length, sources or Sources())
    room = length - fixed.max_new_tokens

    def at(index: int, amount: int) -> tuple[Draft, str, tuple[int, ...]]:
        draft = draw(random.Random(f"{seed}/{name}/{length}/{index}"), amount)
        return draft, *render(tokenizer, draft)

    most = _fit(lambda amount: len(at(0, amount)[2]) <= room, fixed.least)
    if most < fixed.least:
        raise LengthError(
            f"{name} does not fit {length} tokens ({fixed.max_new_tokens} of them new): ask for more"
        )
    prompts = []
    for index in range(samples):
        amount = most
        draft, text, ids = at(index, amount)
        while len(ids) > room and amount > fixed.least:
            amount = max(fixed.least, min(amount - 1, int(amount * room / len(ids))))
            draft, text, ids = at(index, amount)
        if len(ids) > room:
            raise LengthError(
                f"{name}, sample {index}: {len(ids)} tokens do not fit {room}: ask for a longer length"
            )
        prompts.append(
            Prompt(name, length, index, text, ids, draft.answers, fixed.metric, fixed.max_new_tokens, source)
        )
    return prompts


def _fit(fits: Callable[[int], bool], least: int) -> int:
    """The largest amount >= least that fits (doubling, then bisection); least - 1 if none does."""
    if not fits(least):
        return least - 1
    low, high = least, 2 * least
    while fits(high):
        if high > 1 << 22:
            return high
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
