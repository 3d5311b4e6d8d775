"""The probes that are shipped: their files, their cards, and that they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.probe import MLA_PROBE_PATH, PROBE_PATH, load
from evaluators.probe.card import COUNTED_FROM, BudgetScore, Card, DenseScore, card
from evaluators.probe.dense import LENGTHS, PROBE_TASKS, generate_texts
from evaluators.probe.load import shipped
from evaluators.ruler import generate, score

FRESH_SEED = 77_000_111
NIAH = [name for name in PROBE_TASKS if name.startswith("niah")]
FOLDERS = {"gqa": PROBE_PATH, "mla": MLA_PROBE_PATH}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return FOLDERS[request.param]


@pytest.fixture(scope="module")
def probe(folder: Path) -> tuple[Any, Any]:
    return load(folder)


@pytest.fixture
def found(folder: Path) -> Card:
    return card(folder / "card.json")


def test_the_folder_is_at_most_16_mib(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 16 * 2**20


def test_the_model_is_small_and_in_float32(probe: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = probe
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (4, 256, 8)
    assert model.dtype == torch.float32
    assert not model.training
    assert config.vocab_size == len(tokenizer)
    assert config.eos_token_id == tokenizer.eos_token_id


def test_the_shapes_are_those_of_serving_engines() -> None:
    gqa, mla = (json.loads((folder / "config.json").read_text()) for folder in FOLDERS.values())
    assert gqa["architectures"] == ["Qwen3ForCausalLM"]
    assert (gqa["num_key_value_heads"], gqa["head_dim"]) == (2, 64)
    assert mla["architectures"] == ["DeepseekV3ForCausalLM"]
    assert (mla["kv_lora_rank"], mla["qk_rope_head_dim"], mla["q_lora_rank"]) == (128, 32, None)
    assert mla["first_k_dense_replace"] == mla["num_hidden_layers"]


def test_shipped_is_told_from_its_copy(folder: Path, tmp_path: Path) -> None:
    assert shipped(folder)
    (tmp_path / "link").symlink_to(folder)
    assert shipped(tmp_path / "link")
    assert not shipped(tmp_path)
    assert card(folder / "card.json").shape == ("mla" if folder == MLA_PROBE_PATH else "gqa")


@pytest.mark.parametrize(("name", "least"), [("niah_single_1", 1.0), ("niah_multiquery", 0.9), ("vt", 0.9)])
def test_it_answers_fresh_prompts(name: str, least: float, probe: tuple[Any, Any]) -> None:
    model, tokenizer = probe
    prompts = generate(name, 1024, tokenizer, 3, FRESH_SEED)
    texts = generate_texts(model, tokenizer, prompts)
    scores = [score(p.metric, text, p.answers) for p, text in zip(prompts, texts, strict=True)]
    assert sum(scores) / len(scores) >= least, texts


def test_the_card_covers_every_task_and_length(folder: Path, found: Card) -> None:
    raw = json.loads((folder / "card.json").read_text())
    assert len(raw["dense"]) == len(found.dense) == len({(s.task, s.length) for s in found.dense})
    for length in LENGTHS:
        assert set(found.accuracy(length)) == set(PROBE_TASKS)
        above = {s["task"] for s in raw["dense"] if s["length"] == length and s["score"] >= COUNTED_FROM}
        assert set(found.counted(length)) == above
    assert found.counted(1500) == found.counted(2048)
    assert found.counted(100_000) == found.counted(max(LENGTHS))
    assert (folder / "README.md").read_text() == found.markdown()


@pytest.mark.parametrize("length", LENGTHS)
def test_the_card_reaches_the_bars_of_a_probe(length: int, found: Card) -> None:
    accuracy = found.accuracy(length)
    assert all(accuracy[name] >= 0.95 for name in NIAH)
    assert accuracy["vt"] >= 0.99
    assert accuracy["cwe"] >= 0.99
    assert accuracy["fwe"] >= 0.94
    assert all(s.samples >= 100 for s in found.dense)


def test_known_selections_come_apart(found: Card) -> None:
    scores = {(b.selection, b.blocks): b for b in found.budgets}
    blocks = sorted({b.blocks for b in found.budgets})
    assert {selection for selection, _ in scores} == {"random", "mean centroid", "Quest", "oracle"}
    assert len(scores) == 4 * len(blocks)
    assert all(0 <= b.low <= b.score <= b.high <= 1 for b in scores.values())
    for better, worse in (("oracle", "random"), ("Quest", "random"), ("oracle", "mean centroid")):
        assert any(scores[better, n].low > scores[worse, n].high for n in blocks), (better, worse)
    assert any(
        scores["Quest", n].low > scores["mean centroid", n].high
        or scores["Quest", n].high < scores["mean centroid", n].low
        for n in blocks
    )


def test_counted_takes_the_nearest_length_that_is_not_shorter() -> None:
    scores = [("a", 1024, 0.8), ("b", 1024, 0.79), ("a", 2048, 0.5), ("b", 2048, 0.9)]
    dense = tuple(DenseScore(task=t, length=n, score=s, samples=10, seed=1) for t, n, s in scores)
    budget = BudgetScore(selection="random", blocks=2, score=0.5, low=0.4, high=0.6)
    made = Card(
        shape="gqa",
        training="none",
        dense=dense,
        budget_length=2048,
        budget_samples=1,
        budget_block_size=16,
        budgets=(budget,),
    )
    assert made.counted(1024) == made.counted(10) == ("a",)
    assert made.counted(1025) == made.counted(2048) == made.counted(9999) == ("b",)
    assert made.accuracy(512) == {}
    assert "| a | 80.0 | 50.0 |" in made.markdown()
    assert "| random | 50 [40, 60] |" in made.markdown()
