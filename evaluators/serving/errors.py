"""What can go wrong while a serving engine is measured."""

from __future__ import annotations

from vortex.errors import VortexError


class ServingError(VortexError):
    """An engine could not be measured, or what it did is not what was asked; the message says what to do."""
