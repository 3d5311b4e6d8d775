from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from evaluators.probe.curriculum import ALL_TASKS, PHASES, Phase, Sequence1, Writer, batches, draw
from evaluators.ruler import generate
from evaluators.ruler.noise import NOISE_SENTENCES
from evaluators.ruler.prose import prose_sentences

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NEEDLE = re.compile(rf" One of the special magic (\w+) for (\S+) is: (\d{{7}}|{UUID})\.")
FILLER = frozenset((*NOISE_SENTENCES, *prose_sentences()))


def first_question(made: Sequence1, writer: Writer, tokenizer: Any) -> tuple[str, str]:
    """Prompt and answer of a sequence's first question; answers of solved examples have no EOS."""
    end = made.ids.index(writer.eos)
    begin = end
    while made.answer[begin - 1]:
        begin -= 1
    assert made.ids[0] == writer.bos
    return tokenizer.decode(made.ids[1:begin]), tokenizer.decode(made.ids[begin:end])


def form(name: str, text: str) -> str:
    """The prompt without what is drawn: all texts of the generator's form give the same."""
    if name.startswith("niah"):
        intro, context, ask = text.split("\n")
        rest = NEEDLE.sub("", context).strip()
        assert all(f"{sentence}." in FILLER for sentence in rest.removesuffix(".").split(". ") if rest)
        kinds = {kind for kind, _, _ in NEEDLE.findall(context)}
        return f"{intro}|{kinds}|{re.sub(rf'{UUID}|[a-z]+-[a-z]+', 'KEY', ask)}"
    if name == "vt":
        for sentence in NOISE_SENTENCES:
            text = text.replace(f" {sentence}", "")
        return re.sub(r"\b[A-Z]{5}\b", "NAME", re.sub(r"\d{5}", "VALUE", text))
    if name == "cwe":
        return re.sub(r"( ENTRY)+", " LIST", re.sub(r" \d+\. [a-z]+", " ENTRY", text))
    intro, _, ask = text.split("\n")
    return f"{intro}|{ask}"


def answers(name: str, text: str) -> list[str]:
    """What a question's text says the answer is."""
    if name.startswith("niah"):
        found = re.search(r"\nWhat .* the special magic \w+ for (.+) mentioned in the provided text\?", text)
        assert found is not None
        keys = re.split(r",? and |, ", found[1])
        return [value for key in keys for _, named, value in NEEDLE.findall(text) if named == key]
    if name == "vt":
        context = text.split("Remember the chains")[-1]
        value = re.findall(r"hold the value (\d{5})\?", context)[0]
        chain = re.findall(rf"VAR (\w+) = {value}\.", context)
        while more := re.findall(rf"VAR (\w+) = VAR {chain[-1]}\.", context):
            chain += more
        return chain
    if name == "cwe":
        words = re.findall(r" \d+\. ([a-z]+)", text.split("Below is a numbered list")[-1])
        return sorted(word for word in set(words) if words.count(word) > 3)
    words = text.split("\n")[1].split()
    ranked = sorted(set(words) - {"..."}, key=words.count, reverse=True)
    return ranked[:3]


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("name", ALL_TASKS)
def test_the_first_question_has_the_form_of_the_benchmark(name: str, length: int, tokenizer: Any) -> None:
    writer = Writer(tokenizer)
    prompts = generate(name, length, tokenizer, 2, 0)
    expected = {form(name, prompt.text) for prompt in prompts}
    assert len(expected) == 1
    same = 0
    for seed in range(12):
        text, reply = first_question(draw(name, random.Random(seed), length, writer), writer, tokenizer)
        right = answers(name, text)
        assert re.findall(rf"{UUID}|\d{{7}}|\b[A-Z]{{5}}\b|[a-z]{{3,}}\b(?!-)(?!:)", reply)[-len(right) :]
        places = [reply.index(answer) for answer in right]
        assert right
        assert places == sorted(places)
        same += form(name, text) in expected
    # Questions about 2 or 3 keys, and contexts with more than one chain, are practice for the form itself.
    assert same == 12 or (name in ("niah_multiquery", "vt") and same >= 2)


@pytest.mark.parametrize("name", [*ALL_TASKS, "drill", "echo"])
def test_sequences_have_about_the_length_asked_for(name: str, tokenizer: Any) -> None:
    writer = Writer(tokenizer)
    for length in (512, 2048) if name in ALL_TASKS else (256,):
        made = [draw(name, random.Random(seed), length, writer) for seed in range(8)]
        assert all(len(m.ids) == len(m.answer) for m in made)
        assert max(len(m.ids) for m in made) > 0.7 * length
        # A sequence that is cut would teach an answer without its end.
        assert sum(len(m.ids) > 1.05 * length for m in made) <= 1


def test_all_that_an_echo_scores_has_been_said_before(tokenizer: Any) -> None:
    made = draw("echo", random.Random(0), 256, Writer(tokenizer))
    said = len(made.ids) // 2
    follows = dict(itertools.pairwise(made.ids[: said + 1]))
    scored = [at for at, answer in enumerate(made.answer) if answer]
    assert min(scored) > said
    assert len(scored) > 64
    assert all(follows[made.ids[at - 1]] == made.ids[at] for at in scored)


@pytest.mark.parametrize(
    ("name", "unscored"),
    [("drill", 1), ("niah_multikey_1", 2), ("niah_multiquery", 2)],  # in the context; in the question
)
def test_nouns_that_can_be_foretold_are_scored(name: str, unscored: int, tokenizer: Any) -> None:
    made = draw(name, random.Random(1), 256, Writer(tokenizer))
    seen: Counter[int] = Counter()
    for token, scored in zip(made.ids, made.answer, strict=True):
        if re.fullmatch("-[a-z]+", tokenizer.convert_ids_to_tokens(token)):
            assert scored == (seen[token] >= unscored)
            seen[token] += 1
    assert max(seen.values()) > unscored


def test_batches_are_deterministic_and_mark_the_answers(tokenizer: Any) -> None:
    phase = Phase((256,), {"niah_multikey_1": 0.5, "vt": 0.5}, (), 1.0, 1.0, tokens=2048)
    first, again, other = (next(batches(phase, tokenizer, seed)) for seed in ("1", "1", "2"))
    assert np.array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    assert first.x.shape == (8, 257)
    assert first.at.shape == first.kind.shape == (8, 128)
    names = sorted(phase.mix)
    writer = Writer(tokenizer)
    for row in range(8):
        scored = first.at[row][first.kind[row] == 2]
        said = tokenizer.decode(first.x[row][np.sort(scored) + 1])
        text = tokenizer.decode(first.x[row])
        assert said.count(tokenizer.eos_token) == (first.x[row] == writer.eos).sum() > 0
        for answer in answers(names[first.task[row]], text.split(tokenizer.eos_token)[0])[:1]:
            assert answer in said
        others = first.at[row][first.kind[row] == 1]
        assert not set(others) & set(scored)


def test_phases_go_from_short_to_long_and_end_with_all_tasks() -> None:
    assert [max(phase.lengths) for phase in PHASES] == sorted(max(phase.lengths) for phase in PHASES)
    assert PHASES[-1].latest == 1.0
    assert set(PHASES[-1].mix) == set(ALL_TASKS)
    for phase in PHASES:
        assert sum(phase.mix.values()) == pytest.approx(1.0)
        assert set(phase.until) <= set(phase.mix)
