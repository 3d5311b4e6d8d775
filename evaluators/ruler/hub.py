"""Published data by local path or hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class SourceError(ValueError):
    """A data source could not be read; the message says which, and what is accepted."""


def load_rows(source: str, split: str, name: str | None = None) -> Sequence[Any]:
    """Rows of a data set that `datasets` loads: a local folder, or a hub id. Raises SourceError."""
    # A path that is not there must not become a request to the hub.
    if source.startswith(("/", ".", "~")) or Path(source).suffix in {".json", ".jsonl", ".txt"}:
        if not Path(source).is_dir():
            raise SourceError(f"{source}: no such file or folder")
        name = None
    import datasets

    try:
        rows: Sequence[Any] = datasets.load_dataset(source, name, split=split)
    except Exception as error:  # whatever a loader raises, the source is what the user must mend
        raise SourceError(
            f"{source!r} is neither a local path nor a data set that could be loaded: {error}"
        ) from error
    return rows
