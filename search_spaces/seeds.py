"""The known algorithms that a search starts from and is compared with.

Every flow that ships with the language is a seed of the searches for models of its kind; a new one becomes a
seed by being there. The order is that of `_plan`, and `seed_limit` says how many a search takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from search_spaces.behaviour import behaviour
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs, KnobSpace

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph

BEST_KNOWN = {
    "gqa": ("block_sparse_attention", "gqa_block_sparse_attention", "gqa_quest_sparse_attention"),
    "mla": ("rope_aware_block_sparse_mla", "rope_unaware_block_sparse_mla", "quest_mla"),
}
"""By kind of flow: what a reader of the results will look for first."""
QUICK_START = "quick_start"

_SHARES = (1 / 16, 1 / 8, 1 / 4)
"""Chosen share of the context: the best-known seeds are measured at more than one budget, so that they are a
curve to beat."""
_ONCE = _SHARES[1]


@dataclass(frozen=True)
class Seed:
    """A known algorithm with knobs. `source` is a flow file that traces to the candidate's graph."""

    name: str
    source: str
    candidate: Candidate


def seed_limit(budget: int) -> int:
    """How many seeds a search of `budget` candidates measures: a third of it, and at least the best-known
    flows once each."""
    return max(3, budget // 3)


@cache
def seed_graphs(kind: str = "gqa") -> dict[str, FlowGraph]:
    """The traced graph of every seed flow, by name: the best known first, the others in the alphabet's order.
    Trusted code: traced in this process."""
    from vortex.flow import algorithms, get, list_keys, load_graph, trace_source

    shipped = [name for name in list_keys() if get(name).__module__.startswith(algorithms.__name__)]
    others = [name for name in shipped if get(name).kind == kind and name not in BEST_KNOWN[kind]]
    graphs = {name: load_graph(name) for name in (*BEST_KNOWN[kind], *others)}
    if kind == "gqa":
        # Not through the registry: its name there belongs to the user's own copy of the file.
        graphs[QUICK_START] = trace_source(_quick_start(), f"{QUICK_START}.py")
    return graphs


@cache
def seed_flows(kind: str = "gqa") -> dict[str, str]:
    """The flow file of every seed, by name: the Quick Start as written, the shipped ones rendered."""
    from vortex.graph.render import render_flow

    return {
        name: _quick_start() if name == QUICK_START else render_flow(graph, name)
        for name, graph in seed_graphs(kind).items()
    }


def _quick_start() -> str:
    return resources.files("search_spaces.flows").joinpath(f"{QUICK_START}.py").read_text(encoding="utf-8")


def seeds(space: KnobSpace, length: int, kind: str = "gqa", limit: int | None = None) -> tuple[Seed, ...]:
    """The first `limit` seeds (None: all) for models of this kind.

    length: tokens of the prompts measured; the budgets are shares of it, cut to `space`.
    """
    found: dict[str, Seed] = {}
    for name, wanted, share in _plan(kind):
        block_size = min(space.block_size, key=lambda size: abs(size - wanted))
        topk = min(max(round(share * length / block_size), space.topk_low), space.topk_high)
        knobs = Knobs(block_size=block_size, topk_val=topk, bos=space.bos[0], eos=space.eos[0])
        candidate = Candidate(seed_graphs(kind)[name], knobs)
        seed = Seed(f"{name}-{block_size}x{topk}", seed_flows(kind)[name], candidate)
        found.setdefault(candidate.hash, seed)
    return tuple(found.values())[:limit]


def _plan(kind: str) -> Iterator[tuple[str, int, float]]:
    """(flow, block size, share), what one would miss most first: each best-known flow, the same at other
    budgets, then every other flow once. Flows that rank small blocks as one before them does come last and
    with larger blocks, where they may differ."""
    for share in (_ONCE, *(share for share in _SHARES if share != _ONCE)):
        yield from ((name, 16, share) for name in BEST_KNOWN[kind])
    known = {behaviour(seed_graphs(kind)[name]) for name in BEST_KNOWN[kind]}
    twins = []
    for name, graph in seed_graphs(kind).items():
        if name in BEST_KNOWN[kind]:
            continue
        if behaviour(graph) in known:
            twins.append(name)
        else:
            known.add(behaviour(graph))
            yield name, 16, _ONCE
    yield from ((name, 32, _ONCE) for name in twins)
