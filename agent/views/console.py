"""The console that everything is printed on."""

from __future__ import annotations

from rich.console import Console

_PLAIN_WIDTH = 110


def printer(stderr: bool = False) -> Console:
    """A console as wide as the terminal; in logs and pipes wide enough for the tables."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PLAIN_WIDTH)
