"""SQuAD v2 and HotpotQA (distractor setting) as questions over one pool of paragraphs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.ruler.hub import SourceError, load_rows


@dataclass(frozen=True)
class Question:
    """A question, its accepted answers, its gold paragraphs, and the distractors that belong to it."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    near: tuple[str, ...]


@dataclass(frozen=True)
class Documents:
    """All questions of a data set, and all of its paragraphs: further distractors of every question."""

    questions: tuple[Question, ...]
    pool: tuple[str, ...]


def squad(source: str) -> Documents:
    """Answerable questions of SQuAD v2 dev: its published JSON, or a hub data set with the same fields.

    The distractors that belong to a question are the other paragraphs of its article.
    Raises SourceError where `source` is neither.
    """
    with _published(source, "SQuAD v2"):
        if Path(source).is_file():
            rows = _squad_rows(_json(source)["data"])
        else:
            rows = _squad_hub(load_rows(source, "validation"))
    articles: dict[str, dict[str, None]] = {}
    for title, context, _, _ in rows:
        articles.setdefault(title, {})[context] = None
    near = {
        context: tuple(c for c in found if c != context) for found in articles.values() for context in found
    }
    questions = tuple(
        Question(text, answers, (context,), near[context]) for _, context, text, answers in rows
    )
    return _documents(source, questions)


def hotpotqa(source: str) -> Documents:
    """Questions of HotpotQA's distractor dev set: its published JSON, or a hub data set with the same fields.

    The distractors that belong to a question are the paragraphs given with it that are not gold.
    Raises SourceError where `source` is neither.
    """
    with _published(source, "HotpotQA's distractor setting"):
        if Path(source).is_file():
            questions = [_hotpot_local(row) for row in _json(source)]
        else:
            questions = [_hotpot_hub(row) for row in load_rows(source, "validation", "distractor")]
    return _documents(source, questions)


_SquadRow = tuple[str, str, str, tuple[str, ...]]


def _squad_rows(articles: Sequence[Any]) -> list[_SquadRow]:
    return [
        (article["title"], paragraph["context"], qa["question"], _unique(a["text"] for a in qa["answers"]))
        for article in articles
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
        if not qa.get("is_impossible") and qa["answers"]
    ]


def _squad_hub(rows: Iterable[Mapping[str, Any]]) -> list[_SquadRow]:
    return [
        (row["title"], row["context"], row["question"], _unique(row["answers"]["text"]))
        for row in rows
        if row["answers"]["text"]
    ]


def _hotpot_local(row: Mapping[str, Any]) -> Question:
    return _hotpot(row, row["context"], [fact[0] for fact in row["supporting_facts"]])


def _hotpot_hub(row: Mapping[str, Any]) -> Question:
    context = row["context"]
    pairs = zip(context["title"], context["sentences"], strict=True)
    return _hotpot(row, pairs, row["supporting_facts"]["title"])


def _hotpot(row: Mapping[str, Any], context: Iterable[Sequence[Any]], gold_titles: Sequence[str]) -> Question:
    texts = {title: f"{title}\n{''.join(sentences)}" for title, sentences in context}
    gold = tuple(text for title, text in texts.items() if title in gold_titles)
    if not gold:
        raise ValueError(f"question {row['question']!r} has no paragraph of its supporting facts")
    near = tuple(text for title, text in texts.items() if title not in gold_titles)
    return Question(row["question"], (row["answer"],), gold, near)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _documents(source: str, questions: Sequence[Question]) -> Documents:
    if not questions:
        raise SourceError(f"{source}: no question with an answer in it")
    return Documents(tuple(questions), _unique(text for q in questions for text in (*q.gold, *q.near)))


@contextmanager
def _published(source: str, what: str) -> Iterator[None]:
    """What fails inside is a source of another form."""
    try:
        yield
    except SourceError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SourceError(f"{source}: not in the published form of {what} ({error!r})") from error


def _json(source: str) -> Any:
    return json.loads(Path(source).read_text(encoding="utf-8"))
