"""What a candidate reads by its own arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search_spaces.candidate import Candidate
from search_spaces.program import OutsideError, Program, from_graph, to_graph
from vortex.graph.geometry import Geometry


def row_bytes(candidate: Candidate, geometry: Geometry, length: int, layers: int = 0) -> float:
    """Bytes per decode step of one row (request x kv head) of `length` tokens, by the cost model.

    The mean over the model's layers, of which skipped ones are dense; 0 layers: of a layer that is not
    skipped. Raises PolicyError, GuardError.
    """
    from vortex.budget import chosen_blocks, parse_policy
    from vortex.graph.cost import row_cost

    knobs = candidate.knobs
    sized = replace(geometry, block_size=knobs.block_size)
    blocks = -(-length // knobs.block_size)
    policy = parse_policy(knobs.policy) if knobs.policy else None
    chosen = int(chosen_blocks(policy, np.array([blocks]), candidate.config())[0])
    picks = [selection.k for selection in candidate.graph.selections]
    if chosen < blocks and None not in picks:  # a union reads this at most, whatever the plan says
        chosen = min(blocks, sum(k for k in picks if k is not None) + knobs.bos + knobs.eos)
    cost = row_cost(candidate.graph, sized, length, chosen, bos=knobs.bos, eos=knobs.eos)
    skipped = len([layer for layer in knobs.layers_skip if layer < layers])
    share = skipped / layers if layers else 0.0
    return float((1 - share) * cost.bytes + share * row_cost(None, sized, length, blocks).bytes)


def share(candidate: Candidate, geometry: Geometry, length: int, layers: int = 0) -> float:
    """`row_bytes` over those of dense attention."""
    from vortex.graph.cost import row_cost

    dense = row_cost(None, geometry, length, length).bytes
    return row_bytes(candidate, geometry, length, layers) / dense


def dealt(candidate: Candidate) -> Candidate:
    """The candidate, in which a union deals `topk_val` between its two selections in the proportion that they
    have; nothing else sets its budget. Without a union it is the candidate as it is."""
    picks = [selection.k for selection in candidate.graph.selections]
    if len(picks) != 2 or picks[0] is None or picks[1] is None:
        return candidate
    total = candidate.knobs.topk_val
    first = max(1, round(total * picks[0] / (picks[0] + picks[1])))
    second = max(1, total - first)
    knobs = candidate.knobs.with_(topk_val=first + second, topk_ratio=0.0, policy=None)
    try:
        scores = from_graph(candidate.graph).scores
    except OutsideError:
        return candidate
    return Candidate(to_graph(Program.union(scores[0], scores[1], (first, second))), knobs)
