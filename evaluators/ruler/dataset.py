"""RULER tasks as `datasets` data sets, generated once and then read from the cache of `datasets`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.ruler.render import Tokenizer
from evaluators.ruler.sources import Sources
from evaluators.ruler.tasks import generate

if TYPE_CHECKING:
    import datasets

PACKAGE = Path(__file__).parent


class KeyedTokenizer:
    """A tokenizer that stands in the cache key of `datasets` for what it does, not for its state."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.key = hash_tokenizer(tokenizer)

    def __reduce__(self) -> tuple[type[KeyedTokenizer], tuple[str]]:
        return KeyedTokenizer, (self.key,)


def dataset(
    task: str,
    length: int,
    tokenizer: Tokenizer,
    samples: int,
    seed: int,
    sources: Sources | None = None,
    cache_dir: str | Path | None = None,
) -> datasets.Dataset:
    """`generate` as a data set; the columns are the fields of `Prompt`.

    cache_dir: where `datasets` keeps it (default: its own cache). Edited generators, another tokenizer, other
    word lists or changed local files make a new data set. Raises what `generate` raises.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    given = sources or Sources()
    arguments = {
        "task": task,
        "length": length,
        "samples": samples,
        "seed": seed,
        "tokenizer": KeyedTokenizer(tokenizer),
        "sources": given,
        # `datasets` knows an importable generator by its name alone: these make its edits and data count.
        "code": hash_code(),
        "data": given.version,
    }
    strings = datasets.List(datasets.Value("string"))
    features = datasets.Features(
        task=datasets.Value("string"),
        length=datasets.Value("int32"),
        index=datasets.Value("int32"),
        text=datasets.Value("string"),
        ids=datasets.List(datasets.Value("int32")),
        answers=strings,
        metric=datasets.Value("string"),
        max_new_tokens=datasets.Value("int32"),
        source=datasets.Value("string"),
    )
    folder = None if cache_dir is None else str(cache_dir)
    try:
        return datasets.Dataset.from_generator(rows, features, cache_dir=folder, gen_kwargs=arguments)
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None


def rows(
    task: str,
    length: int,
    samples: int,
    seed: int,
    tokenizer: KeyedTokenizer,
    sources: Sources,
    code: str,
    data: str,
) -> Iterator[dict[str, Any]]:
    """Rows of the data set; `code` and `data` are there to be part of its cache key."""
    for prompt in generate(task, length, tokenizer.tokenizer, samples, seed, sources):
        yield dict(vars(prompt))


def hash_code(folder: Path = PACKAGE) -> str:
    """Hash of the source files of the generators."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def hash_tokenizer(tokenizer: Any) -> str:
    """Hash of what decides the ids: the fast tokenizer's own description, or vocabulary and settings."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation are the last call's, and no part of what `encode` does here.
        described = {**json.loads(backend.to_str()), "padding": None, "truncation": None}
    else:
        described = {
            "vocabulary": tokenizer.get_vocab(),
            "settings": str(getattr(tokenizer, "init_kwargs", "")),
        }
    parts = (type(tokenizer).__name__, described, getattr(tokenizer, "chat_template", None))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
