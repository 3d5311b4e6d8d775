"""What every graph of the grammar must satisfy."""

from __future__ import annotations

from search_spaces.grammar import MAX_FIELDS, MAX_OPS
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph

GEOMETRIES = {
    "gqa": (Geometry(16, 64, 4), Geometry(32, 128, 8)),
    "mla": (Geometry.mla(16, 64, 32, 8), Geometry.mla(32, 512, 64, 16)),
}


def check(graph: FlowGraph) -> None:
    """A valid graph by the reader that trusts nobody, small, canonical, and usable on real sizes."""
    again = FlowGraph.from_json(graph.to_json())
    assert again.hash == graph.hash
    assert graph.canonical() is graph or graph.canonical() == graph
    assert 1 <= len(graph.fields) <= MAX_FIELDS
    selectors = {"topK": 1, "Union": 3}[graph.selector.op]
    assert len(graph.cache) + len(graph.indexer) <= MAX_OPS + selectors
    for geometry in GEOMETRIES[graph.kind]:
        graph.instantiate(geometry)
