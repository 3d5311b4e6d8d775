"""Independent draws over the grammar and the knob space: the baseline that learns nothing."""

from __future__ import annotations

import random

from agent.proposers.base import NoProposalError, Proposal, SearchView
from search_spaces.behaviour import ranks_blocks
from search_spaces.candidate import Candidate
from search_spaces.generate import random_graph

_TRIES = 200


class RandomProposer:
    """Draws a graph and knobs afresh each time; only candidates already known are drawn again."""

    name = "random"

    def __init__(self, seed: int = 0):
        self._seed = seed

    def propose(self, view: SearchView) -> Proposal:
        from vortex.graph.render import render_flow

        rng = random.Random(f"random:{self._seed}:{view.index}")
        for _ in range(_TRIES):
            draft = random_graph(rng, view.geometry.kind)
            candidate = Candidate(draft.graph, view.space.sample(rng))
            if (
                ranks_blocks(draft.graph)
                and candidate.serves(view.geometry)
                and not view.known(candidate.hash)
            ):
                return Proposal(
                    source=render_flow(draft.graph, f"random_{draft.graph.hash[:10]}"),
                    knobs=candidate.knobs,
                    hypothesis=f"random draw: {draft.what}",
                    proposer=self.name,
                )
        raise NoProposalError(f"{_TRIES} random draws gave no candidate that is new")

    def repair(self, proposal: Proposal, error: str) -> Proposal | None:
        return None
