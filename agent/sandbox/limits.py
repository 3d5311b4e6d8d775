"""What one candidate may use while it is traced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes: a warm trace takes milliseconds and a few MiB, and machines are busy."""

    cpu_s: float = 1.0
    wall_s: float = 5.0
    memory: int = 512 * 2**20
    """Address space of the traced process (RLIMIT_AS)."""
    answer: int = 2**20
    """Bytes of the one document that comes back."""
    start_s: float = 30.0
    """For the server to import the front end and say that it is ready."""
