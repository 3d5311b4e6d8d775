"""The known algorithms that a search starts from and is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph

SHIPPED = ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention")
QUICK_START = "quick_start"

_SHARES = (1 / 16, 1 / 8, 1 / 4)
"""Chosen share of the context: seeds are measured at more than one budget, so that they are a curve to
beat."""


@dataclass(frozen=True)
class Seed:
    """A known algorithm with knobs. `source` is a flow file that traces to the candidate's graph."""

    name: str
    source: str
    candidate: Candidate


@cache
def seed_graphs() -> dict[str, FlowGraph]:
    """The traced graph of every seed flow, by name. Trusted code: traced in this process."""
    from vortex.flow import load_graph, trace_source

    graphs = {name: load_graph(name) for name in SHIPPED}
    # Not through the registry: its name there belongs to the user's own copy of the file.
    return {**graphs, QUICK_START: trace_source(_quick_start(), f"{QUICK_START}.py")}


@cache
def seed_flows() -> dict[str, str]:
    """The flow file of every seed, by name: the Quick Start as written, the shipped ones rendered."""
    from vortex.graph.render import render_flow

    rendered = {name: render_flow(seed_graphs()[name], name) for name in SHIPPED}
    return {**rendered, QUICK_START: _quick_start()}


def _quick_start() -> str:
    return resources.files("search_spaces.flows").joinpath(f"{QUICK_START}.py").read_text(encoding="utf-8")


def seeds(space: KnobSpace, length: int) -> tuple[Seed, ...]:
    """Each shipped flow at several budgets with the smaller standard block, and the Quick Start with larger
    blocks.

    length: tokens of the prompts measured; the budgets are shares of it, cut to `space`.
    """
    small = _nearest(space.block_size, 16)
    large = _nearest(space.block_size, 32)
    plan = [(name, small, share) for share in _SHARES for name in SHIPPED] + [
        (QUICK_START, large, _SHARES[1])
    ]
    found: dict[str, Seed] = {}
    for name, block_size, share in plan:
        topk = min(max(round(share * length / block_size), space.topk_low), space.topk_high)
        knobs = Knobs(block_size=block_size, topk_val=topk, bos=space.bos[0], eos=space.eos[0])
        candidate = Candidate(seed_graphs()[name], knobs)
        found.setdefault(candidate.hash, Seed(f"{name}-{block_size}x{topk}", seed_flows()[name], candidate))
    return tuple(found.values())


def _nearest(menu: tuple[int, ...], wanted: int) -> int:
    return min(menu, key=lambda value: abs(value - wanted))
