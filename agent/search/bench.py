"""What a search measures on: prompts in two splits, the gate among them, and what a report says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from search_spaces.candidate import Candidate
from search_spaces.knobs import KnobSpace
from search_spaces.seeds import Seed
from vortex.graph.geometry import Geometry

Split = Literal["gate", "search", "heldout"]


@dataclass(frozen=True)
class Bench:
    """The ground that all candidates of a run are compared on.

    gate, rest: positions of prompts in the search split, disjoint; together they are all of it.
    workload, heldout_workload: identities of the two sets of prompts; pairs are formed within one.
    environment: facts that decide whether an evaluation of another run may be used again.
    labels: what a reader must know to judge the numbers (model, length, data, tasks left out).
    """

    workload: str
    heldout_workload: str
    gate: tuple[int, ...]
    rest: tuple[int, ...]
    environment: Mapping[str, object]
    seeds: tuple[Seed, ...] = ()
    space: KnobSpace = field(default_factory=KnobSpace)
    labels: Mapping[str, str] = field(default_factory=dict)
    geometry: Geometry = field(default_factory=lambda: Geometry(head_dim=64, group=4))
    prompt_tokens: int | None = None
    open_heldout: Callable[[], object] = lambda: None
    """Prefills the held-out prompts; called once, before they are needed."""
    time: Callable[[Candidate], str] | None = None
    """Times a candidate against dense attention: a `SpeedReport` or `ServingReport` as JSON."""

    @property
    def prompts(self) -> tuple[int, ...]:
        """Positions of all search prompts."""
        return self.gate + self.rest

    def workload_of(self, split: Split) -> str:
        return self.heldout_workload if split == "heldout" else self.workload
