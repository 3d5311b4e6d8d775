"""What is legal in a flow and probably not meant."""

from __future__ import annotations

from collections.abc import Iterator

from vortex.graph.build import DECLARED_IN
from vortex.graph.fusion import cut
from vortex.graph.model import FlowGraph, Node, RefKind


def advice(graph: FlowGraph) -> tuple[str, ...]:
    """One sentence for each oddity of a graph as it was traced (not of its canonical form), with the line of
    the flow's file where it is known. What has no effect on the selection or a saved field does not count."""
    return tuple(_advice(graph))


def _advice(graph: FlowGraph) -> Iterator[str]:
    kernels = cut(graph)
    scoring = sorted(index for kernel in kernels.scoring for index in kernel.nodes)
    uses = [(graph.indexer[index], kernels.operands[index]) for index in scoring]
    scored = {ref.name: node for node, refs in reversed(uses) for ref in refs if ref.kind is RefKind.FIELD}
    zeros = {ref.name: node for node in graph.cache for ref in node.inputs if ref.kind is RefKind.FIELD}
    written = {node.output: node for _, node in graph.nodes() if node.output is not None}
    for field in graph.fields:
        name, writer = f"the field {field.name!r}", written.get(field.name)
        reader = scored.get(field.name) or zeros.get(field.name)
        if writer is None and reader is None:
            yield f"{name} is neither written nor read; remove it from {DECLARED_IN[field.format]}"
        elif writer is None:
            yield f"{name} is never written and reads as zeros{_line(reader)}"
        elif reader is None:
            yield f"{name} is written and never read{_line(writer)}"
    for field in graph.injected:
        if field.name in scored:
            line = _line(scored[field.name])
            yield f"the indexer reads all of {field.name!r} in every step: as dear as attending to it{line}"


def _line(node: Node | None) -> str:
    return f" (line {node.line})" if node is not None and node.line else ""
