from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.probe import MLA_PROBE_PATH, PROBE_PATH
from evaluators.probe.tokenizer import SPACE, build, vocabulary
from evaluators.ruler.words import all_words, word_list

# U+2581 stands for a space in the vocabulary; lone surrogates are no text.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SPACE), max_size=40)
TOKENIZER = build()


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return ids


@settings(max_examples=300, deadline=None)
@given(texts)
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(texts, texts)
def test_texts_joined_at_a_space_are_encoded_one_by_one(left: str, right: str) -> None:
    assert encode(f"{left} {right}") == encode(left) + encode(f" {right}")


def test_every_text_begins_with_bos() -> None:
    assert TOKENIZER.encode("a") == [TOKENIZER.bos_token_id, *encode("a")]


def test_words_and_numerals_are_one_token_and_codes_one_a_character() -> None:
    assert all(len(encode(f" {word}")) == 1 for word in all_words())
    assert all(len(encode(f" {number}.")) == 1 for number in range(1, 1000))
    adjective, noun = word_list("adjective")[7], word_list("noun")[7]
    assert len(encode(f" {adjective}-{noun}")) == 2
    assert len(encode(" 1234567")) == 8
    assert len(encode(" VAR BCDEF = 12345.")) == 1 + 6 + 1 + 6 + 1
    uuid = "0b5e3f1c-9a7d-4c2e-8f10-6d3a2b1c0e9f"
    assert len(encode(f" {uuid}")) == 1 + len(uuid)


def test_the_vocabulary_has_no_duplicates_and_is_small_enough_for_the_model() -> None:
    pieces = vocabulary()
    assert len(pieces) == len(set(pieces)) == len(TOKENIZER)
    assert len(pieces) < 17_000


@pytest.mark.parametrize("shipped_in", [PROBE_PATH, MLA_PROBE_PATH], ids=["gqa", "mla"])
def test_the_shipped_tokenizer_is_the_built_one(shipped_in: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    build().save_pretrained(tmp_path)
    built, shipped = (
        json.loads((folder / "tokenizer.json").read_text()) for folder in (tmp_path, shipped_in)
    )
    assert built == shipped
    loaded = AutoTokenizer.from_pretrained(shipped_in, local_files_only=True)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(loaded, name) == getattr(TOKENIZER, name)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
