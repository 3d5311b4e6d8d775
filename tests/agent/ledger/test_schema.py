from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from agent.ledger import Ledger, schema
from agent.ledger.models import Base


def test_the_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == schema.HEAD
    assert {script.revision for script in scripts.walk_revisions()} == set(schema._KNOWN)


def test_hash_lookups_use_an_index(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger._engine.connect() as connection:
        indexed = {tuple(index["column_names"]) for index in inspect(connection).get_indexes("candidates")}
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT id FROM candidates WHERE run_id = 1 AND identity = 'x'"
        ).all()
    assert ("hash",) in indexed
    assert all("SCAN" not in row[-1] for row in plan)
