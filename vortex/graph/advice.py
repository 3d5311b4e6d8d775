"""What is legal in a flow and probably not meant."""

from __future__ import annotations

from vortex.graph.model import FlowGraph, RefKind, Stage


def advice(graph: FlowGraph) -> tuple[str, ...]:
    """One sentence for each oddity of a graph as it was traced (not of its canonical form)."""
    read = {ref.name for _, node in graph.nodes() for ref in node.inputs if ref.kind is RefKind.FIELD}
    written = {node.output for _, node in graph.nodes() if node.output is not None}
    found = []
    for field in graph.fields:
        if field.name not in read | written:
            found.append(f"the field {field.name!r} is neither written nor read; remove it from create_cache")
        elif field.name not in written:
            found.append(f"the field {field.name!r} is never written and reads as zeros")
        elif field.name not in read:
            found.append(f"the field {field.name!r} is written and never read")
    for name in (field.name for field in graph.injected):
        if any(ref.name == name for node in graph.canonical().program(Stage.INDEXER) for ref in node.inputs):
            found.append(
                f"the indexer reads all of {name!r} in every step, which costs as much as attending to it"
            )
    return tuple(found)
