"""Alembic's entry point: the connection is handed over by `agent.ledger.schema.upgrade`."""

from __future__ import annotations

from alembic import context

from agent.ledger.models import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
