"""The probe that is shipped: its files, its card, and that it answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evaluators.probe import PROBE_PATH, load
from evaluators.probe.card import COUNTED_FROM, BudgetScore, Card, DenseScore, card
from evaluators.probe.dense import LENGTHS, PROBE_TASKS, generate_texts
from evaluators.ruler import generate, score

FRESH_SEED = 77_000_111
NIAH = [name for name in PROBE_TASKS if name.startswith("niah")]


@pytest.fixture(scope="module")
def probe() -> tuple[Any, Any]:
    return load()


def test_the_folder_is_at_most_16_mib() -> None:
    assert sum(file.stat().st_size for file in PROBE_PATH.rglob("*") if file.is_file()) <= 16 * 2**20


def test_the_model_is_a_small_qwen3_in_float32(probe: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = probe
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (4, 256)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 2, 64)
    assert model.dtype == torch.float32
    assert not model.training
    assert config.vocab_size == len(tokenizer)
    assert config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(("name", "least"), [("niah_single_1", 1.0), ("vt", 0.9)])
def test_it_answers_fresh_prompts(name: str, least: float, probe: tuple[Any, Any]) -> None:
    model, tokenizer = probe
    prompts = generate(name, 1024, tokenizer, 3, FRESH_SEED)
    texts = generate_texts(model, tokenizer, prompts)
    scores = [score(p.metric, text, p.answers) for p, text in zip(prompts, texts, strict=True)]
    assert sum(scores) / len(scores) >= least, texts


def test_the_card_covers_every_task_and_length() -> None:
    raw = json.loads((PROBE_PATH / "card.json").read_text())
    found = card()
    assert len(raw["dense"]) == len(found.dense) == len({(s.task, s.length) for s in found.dense})
    for length in LENGTHS:
        assert set(found.accuracy(length)) == set(PROBE_TASKS)
        above = {s["task"] for s in raw["dense"] if s["length"] == length and s["score"] >= COUNTED_FROM}
        assert set(found.counted(length)) == above
    assert found.counted(1500) == found.counted(2048)
    assert found.counted(100_000) == found.counted(max(LENGTHS))
    assert (PROBE_PATH / "README.md").read_text() == found.markdown()


@pytest.mark.parametrize("length", LENGTHS)
def test_the_card_reaches_the_bars_of_a_probe(length: int) -> None:
    found = card().accuracy(length)
    assert sum(found[name] >= 0.95 for name in NIAH) >= 6
    assert found["vt"] >= 0.90
    assert all(s.samples >= 100 for s in card().dense)


def test_known_selections_come_apart() -> None:
    found = {(b.selection, b.blocks): b for b in card().budgets}
    blocks = sorted({b.blocks for b in card().budgets})
    assert {selection for selection, _ in found} == {"random", "mean centroid", "Quest", "oracle"}
    assert len(found) == 4 * len(blocks)
    assert all(0 <= b.low <= b.score <= b.high <= 1 for b in found.values())
    for better, worse in (("oracle", "random"), ("Quest", "random"), ("oracle", "mean centroid")):
        assert any(found[better, n].low > found[worse, n].high for n in blocks), (better, worse)
    assert any(
        found["Quest", n].low > found["mean centroid", n].high
        or found["Quest", n].high < found["mean centroid", n].low
        for n in blocks
    )


def test_counted_takes_the_nearest_length_that_is_not_shorter() -> None:
    scores = [("a", 1024, 0.8), ("b", 1024, 0.79), ("a", 2048, 0.5), ("b", 2048, 0.9)]
    dense = tuple(DenseScore(task=t, length=n, score=s, samples=10, seed=1) for t, n, s in scores)
    budget = BudgetScore(selection="random", blocks=2, score=0.5, low=0.4, high=0.6)
    made = Card(
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
