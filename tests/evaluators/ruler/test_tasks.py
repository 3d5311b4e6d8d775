from __future__ import annotations

import random
from typing import Any

import pytest

from evaluators.ruler import TASKS, LengthError, Sources, generate, score, task
from evaluators.ruler.tasks import drawer

# The most tokens that one more unit of filler adds: a needle, coded words, a document; else a sentence.
UNIT = {"niah_multikey_2": 24, "niah_multikey_3": 90, "fwe": 60, "qa_1": 160, "qa_2": 120}
SENTENCE = 60


def test_the_thirteen_tasks_with_their_metrics_and_new_tokens() -> None:
    niah = [name for name in TASKS if name.startswith("niah_")]
    assert len(TASKS) == 13
    assert len(niah) == 8
    assert {TASKS[name].max_new_tokens for name in niah} == {128}
    others = {name: TASKS[name].max_new_tokens for name in TASKS if name not in niah}
    assert others == {"vt": 30, "cwe": 120, "fwe": 50, "qa_1": 32, "qa_2": 32}
    assert {name for name in TASKS if TASKS[name].metric == "part"} == {"qa_1", "qa_2"}


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("name", TASKS)
def test_prompts_fill_the_length_and_no_more(
    name: str, length: int, tokenizer: Any, published: Sources
) -> None:
    prompts = generate(name, length, tokenizer, 4, 7, published)
    room = length - TASKS[name].max_new_tokens
    assert [prompt.index for prompt in prompts] == [0, 1, 2, 3]
    for prompt in prompts:
        assert list(prompt.ids) == tokenizer.encode(prompt.text)
        assert 0.75 * room <= len(prompt.ids) <= room
    assert room - len(prompts[0].ids) < UNIT.get(name, SENTENCE)  # the first sample decides the filler


def test_the_length_is_met_to_the_token_and_never_passed(tokenizer: Any) -> None:
    spare = [n - 120 - len(generate("cwe", n, tokenizer, 1, 0)[0].ids) for n in range(1020, 1026)]
    assert set(spare) == {0, 1}  # a list entry takes two tokens


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("name", TASKS)
def test_pieces_are_encoded_as_the_whole_is(
    name: str, length: int, tokenizer: Any, published: Sources
) -> None:
    draw, _ = drawer(name, length, published)
    draft = draw(random.Random(3), {"cwe": 200, "fwe": 300}.get(name, 30))
    pieces = [tokenizer.encode(piece, add_special_tokens=False) for piece in (*draft.pieces, *draft.reply)]
    joined = [tokenizer.bos_token_id, *(token for ids in pieces for token in ids)]
    assert joined == tokenizer.encode(draft.text + "".join(draft.reply))
    assert tokenizer.decode(joined[1:]) == draft.text + "".join(draft.reply)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_draws_the_same_prompts_and_another_seed_others(
    name: str, tokenizer: Any, published: Sources
) -> None:
    first = generate(name, 1024, tokenizer, 3, 0, published)
    assert generate(name, 1024, tokenizer, 3, 0, published) == first
    assert generate(name, 1024, tokenizer, 2, 0, published) == first[:2]
    other = generate(name, 1024, tokenizer, 3, 1, published)
    assert not {prompt.text for prompt in first} & {prompt.text for prompt in other}
    assert len({prompt.text for prompt in first}) == 3


@pytest.mark.parametrize("name", TASKS)
def test_the_reply_that_training_shows_scores_full_and_fits_the_new_tokens(
    name: str, tokenizer: Any, published: Sources
) -> None:
    draw, _ = drawer(name, 1024, published)
    for seed in range(20):
        draft = draw(random.Random(seed), 80)
        assert score(TASKS[name].metric, "".join(draft.reply), draft.answers) == 1.0
        assert draft.text.endswith(draft.prefix)
        assert draft.prefix
        # Variables take 30 tokens; the full stop after them is none of the answer.
        said = "".join(draft.reply).removesuffix(".")
        assert len(tokenizer.encode(said, add_special_tokens=False)) <= TASKS[name].max_new_tokens


@pytest.mark.parametrize("name", ["niah_multikey_3", "vt", "cwe", "fwe", "qa_1"])
def test_a_length_too_short_is_refused_by_name(name: str, tokenizer: Any, published: Sources) -> None:
    with pytest.raises(LengthError, match=rf"{name} does not fit 150 tokens \(\d+ of them new\)"):
        generate(name, 150, tokenizer, 1, 0, published)


def test_an_unknown_task_is_answered_with_the_known_ones(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown RULER task 'niah'.*niah_single_1.*qa_2"):
        task("niah")
    with pytest.raises(ValueError, match="unknown RULER task"):
        generate("niah", 1024, tokenizer, 1, 0)


def test_prompts_say_what_data_they_are_made_from(tokenizer: Any, published: Sources) -> None:
    assert generate("niah_single_1", 1024, tokenizer, 1, 0)[0].source == "synthetic"
    assert generate("niah_single_2", 1024, tokenizer, 1, 0)[0].source == "generated prose"
    assert generate("niah_single_2", 1024, tokenizer, 1, 0, published)[0].source == published.essay
    assert generate("qa_1", 1024, tokenizer, 1, 0, published)[0].source == published.squad
    assert generate("qa_2", 1024, tokenizer, 1, 0, published)[0].source == published.hotpotqa
