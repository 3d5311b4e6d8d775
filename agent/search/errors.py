"""Why a search cannot go on."""

from __future__ import annotations

from vortex.errors import VortexError


class SearchError(VortexError):
    """The search cannot start or go on; the message says why and what to do."""
