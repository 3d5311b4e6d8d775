"""Where haystacks and documents come from: generated prose, or the published data when it is given."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from evaluators.ruler.documents import Documents, hotpotqa, squad
from evaluators.ruler.hub import SourceError, load_rows
from evaluators.ruler.prose import PROSE_VERSION, prose_sentences
from evaluators.ruler.words import WORDS_VERSION

PROSE = "generated prose"
LEAST_SENTENCES = 40


@dataclass(frozen=True)
class Haystack:
    """Sentences of an essay haystack. `running`: they are one text, taken from its beginning on."""

    sentences: tuple[str, ...]
    source: str
    running: bool


@dataclass(frozen=True)
class Sources:
    """Local paths or hub ids of the published data; None: generated prose, and no QA tasks.

    essay: a text file, a folder of .txt files, RULER's JSON of the essays, or a hub id with a `text` column.
    squad: SQuAD v2 dev as its published JSON, or a hub id. hotpotqa: the distractor dev JSON, or a hub id.
    """

    essay: str | None = None
    squad: str | None = None
    hotpotqa: str | None = None

    @property
    def version(self) -> str:
        """What the data is: versions of the generated part, contents of local files, ids of hub data."""
        given = (self.essay, self.squad, self.hotpotqa)
        return "+".join((WORDS_VERSION, PROSE_VERSION, *map(_content, given)))

    def haystack(self) -> Haystack:
        """The essay haystack. Raises SourceError where the essays cannot be read or are too short."""
        if self.essay is None:
            return Haystack(prose_sentences(), PROSE, running=False)
        text = " ".join(" ".join(_texts(self.essay)).split())
        sentences = tuple(part for part in re.split(r"(?<=[.!?])\s+", text) if part)
        if len(sentences) < LEAST_SENTENCES:
            raise SourceError(
                f"{self.essay}: {len(sentences)} sentences; an essay haystack needs {LEAST_SENTENCES} or more"
            )
        return Haystack(sentences, self.essay, running=True)

    def documents(self, task: str) -> tuple[Documents, str]:
        """Documents of `qa_1` (SQuAD) or `qa_2` (HotpotQA), and their source; SourceError without them."""
        option, path, read = {
            "qa_1": ("squad", self.squad, squad),
            "qa_2": ("hotpotqa", self.hotpotqa, hotpotqa),
        }[task]
        if path is None:
            raise SourceError(f"{task} needs its data: give Sources({option}=PATH or hub id)")
        return read(path), path


def _texts(source: str) -> list[str]:
    path = Path(source)
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        return [str(row["text"]) for row in load_rows(source, "train")]
    return [
        _json_text(file) if file.suffix == ".json" else file.read_text(encoding="utf-8") for file in files
    ]


def _json_text(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["text"])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{file}: essays in JSON are one object with the key 'text' ({error!r})") from error


def _content(source: str | None) -> str:
    if source is None:
        return "none"
    path = Path(source)
    files = sorted(file for file in path.glob("**/*") if file.is_file()) if path.is_dir() else [path]
    if not path.exists():
        return f"hub:{source}"
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
