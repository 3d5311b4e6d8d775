"""`python -m vortex.check`."""

from __future__ import annotations

from vortex.check.command import app

app(prog_name="python -m vortex.check")
