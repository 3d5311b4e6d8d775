"""Opens a database for the ledger: any SQLAlchemy URL; SQLite gets WAL, foreign keys and a busy timeout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from agent.ledger import schema
from agent.ledger.errors import LedgerError, explained

BUSY_TIMEOUT_S = 30


def as_url(database: str | Path) -> str:
    """A SQLAlchemy URL from a URL or a file path."""
    text = str(database)
    return text if "://" in text else f"sqlite:///{Path(text)}"


def open_engine(database: str | Path, *, create: bool = True) -> Engine:
    """Connect, and bring the schema up to date.

    Args:
        database: a SQLAlchemy URL, or the path of a SQLite file.
        create: make a missing SQLite file and its folder; otherwise a missing file is an error, and a
            read-only one can be read.

    Raises:
        LedgerError: bad URL, unreadable or read-only database, newer schema.
    """
    url = as_url(database)
    try:
        parsed = make_url(url)
        file = parsed.database if parsed.get_backend_name() == "sqlite" else None
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise LedgerError(
            f"ledger {url}: not a database this installation can open ({error}); "
            "give a path, or a URL like sqlite:///runs/ledger.db or postgresql+psycopg://host/name"
        ) from error
    if file and file != ":memory:" and not file.startswith("file:"):
        _prepare_file(Path(file), url, create)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite(writable=create))
        event.listen(engine, "begin", _begin)
    with explained(url):
        with engine.connect() as connection:
            current = schema.check(connection, url)
        if not current:
            schema.upgrade(engine.execution_options(write=True), url)
    return engine


def _prepare_file(file: Path, url: str, create: bool) -> None:
    if not create and not file.exists():
        raise LedgerError(
            f"ledger {url}: there is no such file: run a search first (python -m agent.search), or give --db"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"ledger {url}: its folder cannot be made: {error}; give another place by --db"
        ) from error


def _configure_sqlite(writable: bool) -> Any:
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun by `_begin`, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        cursor.execute("PRAGMA foreign_keys = ON")
        if writable:
            cursor.execute("PRAGMA journal_mode = WAL")
            # In WAL mode NORMAL loses nothing when a process dies; a power cut may undo the last commits.
            cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    return configure


def _begin(connection: Connection) -> None:
    # Under WAL a deferred transaction that reads, then writes may fail at once: writers say so up front.
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
