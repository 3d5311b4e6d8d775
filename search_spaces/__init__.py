"""What may vary in a search: the knobs, the flow grammar, the seeds and the objectives."""

from __future__ import annotations

from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace

__all__ = ["Candidate", "KnobSpace", "Knobs"]
