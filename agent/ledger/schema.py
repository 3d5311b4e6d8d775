"""Brings a database to the schema of this version; alembic (450 ms to import) is loaded only for that."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from agent.ledger.errors import LedgerError

HEAD = "0001"
_KNOWN = ("0001",)
_MIGRATIONS = Path(__file__).parent / "migrations"


def revision(connection: Connection) -> str | None:
    """The schema revision of the database, or None when it holds no ledger yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check(connection: Connection, url: str) -> bool:
    """True when the schema is up to date, False when it must be upgraded.

    Raises:
        LedgerError: the database was written by a newer version of this package.
    """
    found = revision(connection)
    if found is not None and found not in _KNOWN:
        raise LedgerError(
            f"ledger {url}: its schema {found!r} is newer than this version's {HEAD!r}: "
            "upgrade the package, or give another database by --db"
        )
    return found == HEAD


def upgrade(engine: Engine, url: str) -> None:
    """Create or upgrade the tables, inside one transaction; safe when two processes do it at once."""
    from alembic import command
    from alembic.config import Config

    with engine.begin() as connection:
        if check(connection, url):
            return
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
