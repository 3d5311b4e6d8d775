"""Views of a search for proposer tests: real seeds with made-up measurements."""

from __future__ import annotations

from typing import Any

from agent.proposers.base import Known, Proposal, SearchView
from search_spaces.candidate import Candidate
from search_spaces.knobs import KnobSpace
from search_spaces.seeds import seeds
from vortex.flow import trace_source
from vortex.graph.geometry import Geometry

SPACE = KnobSpace.for_model(layers=4, length=2048)
DENSE_BYTES = 4.0e6


def known(candidate: Candidate, source: str, accuracy: float, share: float, **more: Any) -> Known:
    return Known(
        hash=candidate.hash,
        candidate=candidate,
        source=source,
        hypothesis=more.pop("hypothesis", "a seed"),
        proposer=more.pop("proposer", "seed"),
        parents=more.pop("parents", ()),
        accuracy=accuracy,
        low=accuracy - 0.05,
        high=accuracy + 0.05,
        bytes=share * DENSE_BYTES,
        dense_bytes=DENSE_BYTES,
        **more,
    )


def seeded(index: int = 0, **more: Any) -> SearchView:
    """The seeds with accuracies that rise with their bytes."""
    rows = []
    for i, seed in enumerate(seeds(SPACE, 2048)):
        rows.append(known(seed.candidate, seed.source, 0.5 + 0.03 * i, 0.1 + 0.02 * i, on_front=i > 3))
    shown = {row.hash for row in rows}
    values: dict[str, Any] = {
        "best": tuple(rows),
        "known": shown.__contains__,
        "space": SPACE,
        "dense_accuracy": 0.97,
        "dense_bytes": DENSE_BYTES,
        "prompt_tokens": 2048,
        "geometry": Geometry(head_dim=64, group=4),
    }
    return SearchView(index=index, **{**values, **more})


def traced(proposal: Proposal) -> Candidate:
    """What the search makes of a proposal, without the jail."""
    return Candidate(trace_source(proposal.source), proposal.knobs)
