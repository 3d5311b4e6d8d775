"""Training sequences of the probe model: this project's RULER prompts, with several questions a context.

Phases go by skill, then by length, at 256 tokens first: what followed a word before follows it again; then
associative recall; then needles. Retrieval heads form all at once, and a run that mixes every task from the
start never forms them. Each longer length then takes seconds.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from evaluators.ruler import cwe, fwe, niah, vt
from evaluators.ruler.niah import Niah
from evaluators.ruler.prompt import Draft
from evaluators.ruler.prose import prose_sentences
from evaluators.ruler.tasks import NIAH
from evaluators.ruler.words import all_words

Array = np.ndarray[Any, np.dtype[Any]]
# Shares of the sequences; common words are learnt last and need the largest.
ALL_TASKS = {
    "niah_single_1": 0.02,
    "niah_single_2": 0.03,
    "niah_single_3": 0.08,
    "niah_multikey_1": 0.05,
    "niah_multikey_2": 0.08,
    "niah_multikey_3": 0.11,
    "niah_multivalue": 0.08,
    "niah_multiquery": 0.13,
    "vt": 0.10,
    "cwe": 0.23,
    "fwe": 0.09,
}


@dataclass(frozen=True)
class Phase:
    """Sequences of one of `lengths` (tokens), `tokens` a step in all, tasks drawn by `mix`.

    Ends once every task of `until` answers `level` of its answer tokens right, at the latest at the share
    `latest` of the training time.
    """

    lengths: tuple[int, ...]
    mix: dict[str, float]
    until: tuple[str, ...]
    level: float
    latest: float
    tokens: int = 65_536


_RETRIEVAL = ("niah_single_3", "niah_multikey_2", "niah_multiquery", "vt")
PHASES = (
    Phase((256,), {"echo": 1.0}, ("echo",), 0.97, 0.12),
    Phase(
        (256,),
        {"echo": 0.1, "drill": 0.4, "niah_multikey_1": 0.4, "niah_multikey_2": 0.1},
        ("niah_multikey_1",),
        0.97,
        0.36,
    ),
    Phase(
        (256,),
        {
            "drill": 0.05,
            "niah_multikey_1": 0.1,
            "niah_multikey_2": 0.15,
            "niah_multiquery": 0.15,
            "niah_single_3": 0.3,
            "vt": 0.25,
        },
        ("niah_single_3", "niah_multikey_2", "vt"),
        0.97,
        0.44,
    ),
    Phase((512,), ALL_TASKS, _RETRIEVAL, 0.97, 0.50),
    Phase((512, 1024), ALL_TASKS, _RETRIEVAL, 0.98, 0.56),
    Phase((1024, 2048), ALL_TASKS, _RETRIEVAL, 0.98, 0.62),
    Phase((512, 1024, 2048, 4096, 4096, 4096), ALL_TASKS, (), 1.0, 1.0),
)


@dataclass(frozen=True)
class Sequence1:
    """Token ids of one training sequence and which of them are scored as answers."""

    ids: list[int]
    answer: list[bool]


@dataclass(frozen=True)
class Part:
    """A stretch of a sequence: prompt text, prompt text that can be foretold and is scored, or an answer."""

    pieces: Sequence[str]
    kind: Literal["text", "scored", "answer"] = "text"


class Writer:
    """Builds sequences from pieces, encoding each piece once."""

    def __init__(self, tokenizer: Any) -> None:
        self.bos, self.eos, self.pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        raw = tokenizer.backend_tokenizer
        self.encode = lru_cache(maxsize=200_000)(
            lambda piece: tuple(raw.encode(piece, add_special_tokens=False).ids)
        )

    def count(self, pieces: Sequence[str]) -> int:
        return sum(len(self.encode(piece)) for piece in pieces)

    def write(self, parts: Sequence[Part]) -> Sequence1:
        """The sequence of `parts`; EOS follows an answer."""
        ids, answer = [self.bos], [False]
        for part in parts:
            for piece in part.pieces:
                ids += self.encode(piece)
            if part.kind == "answer":
                ids.append(self.eos)
            answer += [part.kind != "text"] * (len(ids) - len(answer))
        return Sequence1(ids, answer)


def _turns(drafts: Sequence[Draft], last: Literal["answer", "scored"] = "answer") -> list[Part]:
    return [part for draft in drafts for part in (Part(draft.pieces), Part(draft.reply, last))]


def _key(piece: str) -> list[Part]:
    """A key that was named before: its noun can be foretold from its adjective."""
    adjective, hyphen, noun = piece.partition("-")
    return [Part((adjective,)), Part((hyphen + noun,), "scored")]


def _restating(draft: Draft, asked: Sequence[str]) -> list[Part]:
    """A turn whose prompt ends with the keys asked for and one last piece.

    A reply about several keys names them, and copying each of thousands of nouns takes many examples.
    """
    end = len(draft.pieces) - 1
    begin = end - len(niah.join_keys(asked))
    keys = [part for piece in draft.pieces[begin:end] for part in _key(piece)]
    return [Part(draft.pieces[:begin]), *keys, Part(draft.pieces[end:]), Part(draft.reply, "answer")]


def _echo(rng: random.Random, length: int, writer: Writer) -> Sequence1:
    """Words and keys, then the same in runs of another order: within a run every word can be foretold."""
    words: dict[str, None] = {}
    while len(words) < length // 2:
        if rng.random() < 0.5:
            words[f" {rng.choice(all_words())}"] = None
        else:
            adjective, hyphen, noun = niah.random_text("word", rng).partition("-")
            words |= {f" {adjective}": None, hyphen + noun: None}
    pieces = list(words)[: length // 2]
    cuts = sorted({0, len(pieces), *rng.choices(range(len(pieces)), k=len(pieces) // 4)})
    runs = [pieces[begin:end] for begin, end in itertools.pairwise(cuts)]
    rng.shuffle(runs)
    parts = [part for run in runs for part in (Part(run[:1]), Part(run[1:], "scored"))]
    return writer.write([Part(pieces), *parts])


def _drill(rng: random.Random, length: int, writer: Writer) -> Sequence1:
    """Associative recall: keys and 3 digits, then every key again in another order, its noun foretold."""
    gap = rng.choice(((), (" is",), (" is", ":")))
    each = 6 + len(gap)
    pairs = [
        (niah.random_text("word", rng), str(rng.randint(100, 999))) for _ in range(length // (2 * each + 1))
    ]
    first = [piece for key, value in pairs for piece in (f" {key}", *gap, f" {value}")]
    rng.shuffle(pairs)
    parts = [Part(first)]
    for key, value in pairs:
        parts += [*_key(f" {key}"), Part(gap), Part((f" {value}",), "answer")]
    return writer.write(parts)


def _niah(task: Niah, rng: random.Random, length: int, writer: Writer) -> Sequence1:
    """The task's prompt, at times with more needles than it has, and more questions after the first."""
    queries = min(task.queries, 2) if length <= 256 or task.queries == 1 else rng.choice((2, 3, 4, 4))
    values = min(task.values, 2) if length <= 256 else task.values if task.values == 1 else rng.randint(2, 4)
    ask_cost = (
        40 + 30 * (task.value == "uuid") + 68 * (task.key == "uuid") + 18 * (queries - 1) + 9 * (values - 1)
    )
    line_cost = (20 + 29 * (task.value == "uuid") + 35 * (task.key == "uuid")) * values
    room = length - 24 - ask_cost
    if task.haystack == "needle":
        turns = 1 + min(7, rng.randint(0, max(0, room // (2 * ask_cost))))
        keys = max(2, (room - (turns - 1) * ask_cost) // line_cost)
    else:
        least = max(task.keys, queries)
        most = max(least, min(room // (line_cost + ask_cost // 2), 100 if rng.random() < 0.2 else 12))
        keys = rng.randint(least, most) if rng.random() < 0.5 or length <= 512 else least
        turns = 1 + min(7, keys // queries - 1, max(0, (room - keys * line_cost) // ask_cost))
    spec = Niah(task.haystack, task.key, task.value, keys, values, queries)
    needles = niah.draw_needles(spec, rng)
    names = list(dict.fromkeys(needle.key for needle in needles))
    rng.shuffle(names)
    asked = [names[turn * queries : (turn + 1) * queries] for turn in range(turns)]
    asked = [group for group in asked if group]
    filler = length - 24 - len(asked) * ask_cost - len(names) * line_cost
    each = {"essay": 13.2, "noise": 5.6, "needle": 1e9}[task.haystack]
    amount = max(0, int(filler / each)) if rng.random() < 0.8 else int(rng.random() * max(0, filler) / each)
    haystack, placed = niah.scatter(spec, needles, rng, amount, prose_sentences())
    first = niah.intro(spec) + haystack
    drafts = [niah.ask(spec, placed, group, first if not at else ()) for at, group in enumerate(asked)]
    if task.key == "uuid":
        return writer.write(_turns(drafts))
    return writer.write([p for d, group in zip(drafts, asked, strict=True) for p in _restating(d, group)])


def _vt(rng: random.Random, length: int, writer: Writer) -> Sequence1:
    example = length > 512 or (length == 512 and rng.random() < 0.5)
    room = length - (190 if example else 12) - 75
    most = max(1, min(3, room // 160))
    chains = rng.randint(1, most) if rng.random() < 0.5 else 1
    made = [vt.draw_chain(rng) for _ in range(chains)]
    amount = max(3, int((room - 80 * chains - 70 * (chains - 1)) / 5.6))
    amount = amount if rng.random() < 0.8 else rng.randint(3, amount)
    parts: list[Part] = []
    if example:
        parts = [*_turns([vt.draw(rng, vt.EXAMPLE_FILLER, example=False)], "scored"), Part(("\n",))]
    context = (vt.INTRO, *vt.scatter(made, rng, amount))
    drafts = [vt.question(context if not at else (), names, value) for at, (names, value) in enumerate(made)]
    return writer.write(parts + _turns(drafts))


def _cwe(rng: random.Random, length: int, writer: Writer) -> Sequence1:
    example = length >= 1024
    room = length - 68 - (460 if example else 0)
    # An entry takes 2 tokens up to number 999, and 7 beyond it.
    amount = max(70, room // 2 if room < 1998 else 999 + (room - 1998) // 7)
    amount = amount if rng.random() < 0.8 or length < 1024 else rng.randint(70, amount)
    parts = [*_turns([cwe.solved_example(rng)], "scored"), Part(("\n",))] if example else []
    return writer.write(parts + _turns([cwe.draw(rng, amount, length=length, example=False)]))


def _fwe(rng: random.Random, length: int, writer: Writer) -> Sequence1:
    amount = int((length - 70) / 3.5)
    return writer.write(
        _turns([fwe.draw(rng, amount if rng.random() < 0.8 else rng.randint(50, max(50, amount)))])
    )


def draw(name: str, rng: random.Random, length: int, writer: Writer) -> Sequence1:
    """One training sequence of about `length` tokens (cut or padded by the caller)."""
    if name in NIAH:
        return _niah(NIAH[name], rng, length, writer)
    others: dict[str, Callable[[random.Random, int, Writer], Sequence1]] = {
        "echo": _echo,
        "drill": _drill,
        "vt": _vt,
        "cwe": _cwe,
        "fwe": _fwe,
    }
    return others[name](rng, length, writer)


@dataclass(frozen=True)
class Batch:
    """x [B, L + 1] token ids; at [B, K] positions whose next token is scored; kind [B, K] (2 answer, 1 other,
    0 padding); task [B] index into the sorted task names of the phase."""

    x: Array
    at: Array
    kind: Array
    task: Array


def batches(phase: Phase, tokenizer: Any, seed: str) -> Iterator[Batch]:
    """Endless batches of a phase, deterministic in `seed`."""
    rng = random.Random(seed)
    writer = Writer(tokenizer)
    names = sorted(phase.mix)
    shares = [phase.mix[name] for name in names]
    while True:
        length = rng.choice(phase.lengths)
        yield _batch(
            phase.tokens // length,
            length,
            names,
            rng.choices(names, shares, k=phase.tokens // length),
            rng,
            writer,
        )


def _batch(
    size: int, length: int, names: list[str], drawn: list[str], rng: random.Random, writer: Writer
) -> Batch:
    scored = max(128, length // 4)
    x = np.full((size, length + 1), writer.pad, dtype=np.int64)
    at = np.zeros((size, scored), dtype=np.int64)
    kind = np.zeros((size, scored), dtype=np.int64)
    for row, name in enumerate(drawn):
        made = draw(name, rng, length, writer)
        count = min(len(made.ids), length + 1)
        x[row, :count] = made.ids[:count]
        answer = np.array(made.answer[1:count], dtype=bool)
        answers, others = np.flatnonzero(answer)[:scored], np.flatnonzero(~answer)
        picked = np.array(
            rng.sample(range(len(others)), min(len(others), scored - len(answers))), dtype=np.int64
        )
        positions = np.concatenate([answers, others[picked]])
        at[row, : len(positions)] = positions
        kind[row, : len(positions)] = [2] * len(answers) + [1] * len(picked)
    return Batch(x, at, kind, np.array([names.index(name) for name in drawn], dtype=np.int64))
