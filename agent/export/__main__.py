"""`python -m agent.export`."""

from __future__ import annotations

from agent.export.command import app

app(prog_name="python -m agent.export")
