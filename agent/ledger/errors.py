"""What can go wrong with a ledger, said so that the user knows what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from vortex.errors import VortexError


class LedgerError(VortexError):
    """The ledger cannot be opened, read or written; the message names the database and the way out."""


_ADVICE = (
    ("readonly", "the database is read-only: make it writable, or give another one by --db"),
    ("read-only", "the database is read-only: make it writable, or give another one by --db"),
    ("disk is full", "the disk is full: free some space, then continue with --resume"),
    ("unable to open", "the file cannot be opened: check that its folder exists and is writable"),
    ("locked", "another process holds the database: wait for it, then continue with --resume"),
    ("not a database", "the file is not a SQLite database: give another one by --db"),
    ("malformed", "the file is damaged: restore a copy, or give another one by --db"),
)


def explain(url: str, error: SQLAlchemyError) -> LedgerError:
    """The `LedgerError` for a database error of SQLAlchemy."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    advice = next((advice for word, advice in _ADVICE if word in text.lower()), None)
    return LedgerError(f"ledger {url}: {advice or 'the database refused the operation'} ({text})")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn SQLAlchemy's errors inside the block into `LedgerError`."""
    try:
        yield
    except SQLAlchemyError as error:
        raise explain(url, error) from error
