from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluators.ruler import LengthError, SourceError, Sources, dataset, generate
from evaluators.ruler.dataset import PACKAGE, KeyedTokenizer, hash_code, hash_tokenizer

Calls = list[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Tasks that were generated, not read from the cache."""
    made: Calls = []

    def counted(name: str, *rest: Any) -> Any:
        made.append(name)
        return generate(name, *rest)

    monkeypatch.setitem(dataset.__globals__, "generate", counted)
    return made


def test_rows_are_the_prompts(tokenizer: Any, tmp_path: Path) -> None:
    found = dataset("niah_multivalue", 1024, tokenizer, 3, 5, cache_dir=tmp_path)
    prompts = generate("niah_multivalue", 1024, tokenizer, 3, 5)
    assert len(found) == 3
    for row, prompt in zip(found, prompts, strict=True):
        assert {**row, "ids": tuple(row["ids"]), "answers": tuple(row["answers"])} == vars(prompt)


def test_the_cache_serves_the_same_question_only(tokenizer: Any, tmp_path: Path, calls: Calls) -> None:
    from evaluators.probe.tokenizer import build

    first = dataset("vt", 1024, tokenizer, 1, 0, cache_dir=tmp_path)
    again = dataset("vt", 1024, build(), 1, 0, Sources(), cache_dir=tmp_path)
    assert calls == ["vt"]
    assert again[0] == first[0]
    dataset("fwe", 1024, tokenizer, 1, 0, cache_dir=tmp_path)
    dataset("vt", 1100, tokenizer, 1, 0, cache_dir=tmp_path)
    dataset("vt", 1024, tokenizer, 2, 0, cache_dir=tmp_path)
    assert dataset("vt", 1024, tokenizer, 1, 1, cache_dir=tmp_path)[0] != first[0]
    assert calls == ["vt", "fwe", "vt", "vt", "vt"]


def test_edited_generators_make_a_new_data_set(
    tokenizer: Any, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "edited"
    shutil.copytree(PACKAGE, edited, ignore=shutil.ignore_patterns("__pycache__"))
    assert hash_code(edited) == hash_code()
    dataset("vt", 1024, tokenizer, 1, 0, cache_dir=tmp_path / "cache")
    noise = edited / "noise.py"
    noise.write_text(noise.read_text().replace("The sky is blue.", "The sky is grey."))
    assert hash_code(edited) != hash_code()
    monkeypatch.setitem(dataset.__globals__, "hash_code", lambda: hash_code(edited))
    dataset("vt", 1024, tokenizer, 1, 0, cache_dir=tmp_path / "cache")
    assert calls == ["vt", "vt"]


def test_changed_essays_make_a_new_data_set(tokenizer: Any, tmp_path: Path, calls: Calls) -> None:
    path = tmp_path / "essay.txt"
    for word in ("first", "second", "second"):
        path.write_text(" ".join(f"The {word} sentence is {i}." for i in range(60)))
        rows = dataset("niah_single_2", 1024, tokenizer, 1, 0, Sources(essay=str(path)), tmp_path / "cache")
        assert f"The {word} sentence is 0." in rows[0]["text"]
    assert len(calls) == 2


def test_another_word_list_version_makes_a_new_data_set(
    tokenizer: Any, tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset("vt", 1024, tokenizer, 1, 0, cache_dir=tmp_path)
    monkeypatch.setattr("evaluators.ruler.sources.WORDS_VERSION", "wonderwords-4")
    dataset("vt", 1024, tokenizer, 1, 0, cache_dir=tmp_path)
    assert len(calls) == 2


def test_the_tokenizers_hash_is_of_what_it_encodes() -> None:
    from tokenizers import AddedToken

    from evaluators.probe.tokenizer import build

    first, other = build(), build()
    first(["a", "a b"], padding=True, truncation=True, max_length=2)  # leaves its settings in the backend
    assert hash_tokenizer(first) == hash_tokenizer(other)
    other.chat_template = "{{ messages }}"
    assert hash_tokenizer(first) != hash_tokenizer(other)
    first.add_tokens([AddedToken("magic")])
    assert len({hash_tokenizer(first), hash_tokenizer(other), hash_tokenizer(build())}) == 3
    assert KeyedTokenizer(first).__reduce__()[1] == (hash_tokenizer(first),)


def test_errors_are_those_of_the_generator(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(LengthError, match="vt does not fit 100 tokens"):
        dataset("vt", 100, tokenizer, 1, 0, cache_dir=tmp_path)
    with pytest.raises(SourceError, match="qa_1 needs its data"):
        dataset("qa_1", 1024, tokenizer, 1, 0, cache_dir=tmp_path)
