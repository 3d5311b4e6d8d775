"""The probe's tokenizer, and published data in small: files in the published formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.ruler import Sources

ARTICLES, PARAGRAPHS, HOTPOT = 4, 6, 12


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from evaluators.probe.tokenizer import build

    return build()


@pytest.fixture(scope="session")
def squad_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SQuAD v2: 4 articles of 6 paragraphs, an answerable and an impossible question on each."""
    articles = [
        {"title": f"Town {a}", "paragraphs": [_squad_paragraph(a, p) for p in range(PARAGRAPHS)]}
        for a in range(ARTICLES)
    ]
    path = tmp_path_factory.mktemp("squad") / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": articles}))
    return path


def _squad_paragraph(article: int, number: int) -> dict[str, Any]:
    year = str(1700 + 10 * article + number)
    context = f"The bridge {number} of town {article} was opened in {year}. It is still in use today."
    answers = [{"text": year, "answer_start": context.index(year)}, {"text": f"in {year}", "answer_start": 0}]
    answers.append(answers[0])
    asked = f"When was bridge {number} of town {article} opened"
    return {
        "context": context,
        "qas": [
            {
                "id": f"{article}.{number}",
                "question": f"{asked}?",
                "answers": answers,
                "is_impossible": False,
            },
            {
                "id": f"x{article}.{number}",
                "question": "Who closed it?",
                "answers": [],
                "is_impossible": True,
            },
        ],
    }


@pytest.fixture(scope="session")
def hotpot_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HotpotQA, distractor setting: 12 questions, each with 2 gold and 3 other paragraphs."""
    rows = []
    for q in range(HOTPOT):
        titles = [f"River {q}", f"Valley {q}", f"Hill {q}", f"Lake {q}", f"Wood {q}"]
        context = [[t, [f"{t} is a place.", f" Its number is {q}{i}."]] for i, t in enumerate(titles)]
        facts = [[f"River {q}", 1], [f"Valley {q}", 0]]
        asked = f"Which number has river {q}?"
        rows.append({"question": asked, "answer": f"{q}0", "context": context, "supporting_facts": facts})
    path = tmp_path_factory.mktemp("hotpot") / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="session")
def essay_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 sentences over several lines, with words that no word list has."""
    text = "\n".join(f"Startup number {i} grew – it “surprised”\neveryone!" for i in range(60))
    path = tmp_path_factory.mktemp("essay") / "essays.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def published(essay_file: Path, squad_file: Path, hotpot_file: Path) -> Sources:
    return Sources(str(essay_file), str(squad_file), str(hotpot_file))
