"""Where haystacks and documents come from: generated prose, or the published data when it is given."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.ruler.prose import PROSE_VERSION, prose_sentences
from evaluators.ruler.words import WORDS_VERSION


class SourceError(ValueError):
    """A data source could not be read; the message says which, and what is accepted."""


@dataclass(frozen=True)
class Question:
    """One question of a document task, its accepted answers, its gold paragraphs and the distractors."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Local paths or hub ids of the published data; None: generated prose, and no QA tasks.

    essay: a text file, a folder of .txt files, or a hub data set with a `text` column.
    squad: SQuAD v2 dev as its published JSON, or a hub id. hotpotqa: the distractor dev JSON, or a hub id.
    """

    essay: str | None = None
    squad: str | None = None
    hotpotqa: str | None = None

    @property
    def version(self) -> str:
        return f"{WORDS_VERSION}+{PROSE_VERSION}+{self.essay}+{self.squad}+{self.hotpotqa}"

    def sentences(self) -> tuple[tuple[str, ...], str]:
        """The essay haystack as sentences, and the name reports give it."""
        if self.essay is None:
            return prose_sentences(), "generated prose"
        text = " ".join(_texts(self.essay))
        sentences = tuple(part for part in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if part)
        if len(sentences) < 40:
            raise SourceError(f"{self.essay}: {len(sentences)} sentences; an essay haystack needs at least 40")
        return sentences, self.essay

    def questions(self, task: str) -> tuple[Question, ...]:
        """The questions of `qa_1` (SQuAD) or `qa_2` (HotpotQA)."""
        path, read = (self.squad, _squad) if task == "qa_1" else (self.hotpotqa, _hotpotqa)
        if path is None:
            option = "squad" if task == "qa_1" else "hotpotqa"
            raise SourceError(f"{task} needs its data: give Sources({option}=PATH or hub id)")
        return read(path)


def _texts(source: str) -> list[str]:
    path = Path(source)
    if path.is_dir():
        return [file.read_text() for file in sorted(path.glob("*.txt"))]
    if path.is_file():
        return [path.read_text()]
    return [str(row["text"]) for row in _hub(source, "train")]


def _hub(source: str, split: str, name: str | None = None) -> Sequence[Any]:
    import datasets

    try:
        rows: Sequence[Any] = datasets.load_dataset(source, name, split=split)
    except Exception as error:
        raise SourceError(f"{source!r} is neither a local path nor a data set that could be loaded: {error}") from error
    return rows


def _unique(texts: Sequence[str], without: Sequence[str] = ()) -> tuple[str, ...]:
    refused = set(without)
    return tuple(text for text in dict.fromkeys(texts) if text not in refused)


def _squad(source: str) -> tuple[Question, ...]:
    rows: list[tuple[str, tuple[str, ...], str]] = []
    if Path(source).is_file():
        try:
            for article in json.loads(Path(source).read_text())["data"]:
                for paragraph in article["paragraphs"]:
                    for qa in paragraph["qas"]:
                        if not qa.get("is_impossible") and qa["answers"]:
                            answers = _unique([answer["text"] for answer in qa["answers"]])
                            rows.append((qa["question"], answers, paragraph["context"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{source}: not the published SQuAD v2 JSON ({error!r})") from error
    else:
        for row in _hub(source, "validation"):
            if row["answers"]["text"]:
                rows.append((row["question"], _unique(row["answers"]["text"]), row["context"]))
    documents = _unique([context for _, _, context in rows])
    return tuple(Question(text, answers, (context,), _unique(documents, (context,))) for text, answers, context in rows)


def _hotpotqa(source: str) -> tuple[Question, ...]:
    local = Path(source).is_file()
    rows = json.loads(Path(source).read_text()) if local else _hub(source, "validation", "distractor")
    found = []
    try:
        for row in rows:
            context, facts = row["context"], row["supporting_facts"]
            pairs = context if local else list(zip(context["title"], context["sentences"], strict=True))
            gold_titles = {fact[0] for fact in facts} if local else set(facts["title"])
            texts = {title: f"{title}\n{''.join(sentences)}" for title, sentences in pairs}
            gold = tuple(text for title, text in texts.items() if title in gold_titles)
            others = tuple(text for title, text in texts.items() if title not in gold_titles)
            found.append(Question(row["question"], (row["answer"],), gold, others))
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{source}: not the published HotpotQA distractor JSON ({error!r})") from error
    # The amount of filler must be able to grow: distractors of other questions follow the question's own.
    pool = _unique([text for question in found for text in question.others])
    return tuple(
        Question(q.question, q.answers, q.gold, q.others + _unique(pool, q.gold + q.others)) for q in found
    )
