"""The search: `python -m agent.search --budget 50`. Start reading at `session.py`, then `loop.py`."""
