"""`python -m agent.search`: see `command.py` for the options."""

from __future__ import annotations

from agent.search.command import main

if __name__ == "__main__":
    main()
