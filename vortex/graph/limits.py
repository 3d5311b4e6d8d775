"""Refuses graphs that are too large to be real before anything is allocated or computed for them.

The limits are per block or per row at the geometry of the graph. Quest at block 16 and head dim 128 has 256
field elements and about 4 thousand flops a block; the limits leave room for two to three orders of
magnitude.
"""

from __future__ import annotations

from vortex.errors import GraphError
from vortex.graph.build import MAX_OPS
from vortex.graph.model import FlowGraph, Node, Stage
from vortex.ops import Args, find_op

MAX_FIELD_ELEMENTS = 2**16  # of all auxiliary fields of a block; k has 2**11 at block 16, head dim 128
MAX_BLOCK_ELEMENTS, MAX_BLOCK_FLOPS = 2**16, 2**22  # of one result, and of a whole program, for one block
MAX_ROW_ELEMENTS, MAX_ROW_FLOPS = 2**20, 2**27  # of what is computed once a row


def check_size(graph: FlowGraph) -> None:
    """Raises GraphError naming what is too large."""
    if len(graph.cache) + len(graph.indexer) > MAX_OPS:
        raise GraphError(f"the graph has {len(graph.cache) + len(graph.indexer)} ops, more than {MAX_OPS}")
    held = 0
    for field in graph.fields:
        held += field.type.numel
        if held > MAX_FIELD_ELEMENTS:
            raise GraphError(
                f"field {field.name!r} ({field.rows}, {field.cols}) makes {held} field elements a block, "
                f"more than {MAX_FIELD_ELEMENTS}. Declare fewer rows or columns"
            )
    for stage in Stage:
        spent = {True: 0, False: 0}
        for node in graph.program(stage):
            types = [node.type, *(graph.type_of(stage, ref) for ref in node.inputs)]
            per_row = not any(found.has_blocks for found in types)
            limit, budget = (
                (MAX_ROW_ELEMENTS, MAX_ROW_FLOPS) if per_row else (MAX_BLOCK_ELEMENTS, MAX_BLOCK_FLOPS)
            )
            unit = "row" if per_row else "block"
            if node.type.numel > limit:
                raise _too_large(stage, node, f"has {node.type.numel} elements a {unit}, more than {limit}")
            spent[per_row] += node_flops(graph, stage, node)
            if spent[per_row] > budget:
                raise _too_large(
                    stage, node, f"brings the program to {spent[per_row]} flops a {unit}, more than {budget}"
                )


def node_flops(graph: FlowGraph, stage: Stage, node: Node) -> int:
    """Operations per entry of the result (per block read, for a reduction over blocks), at the graph's
    geometry."""
    types = tuple(graph.type_of(stage, ref) for ref in node.inputs)
    return int(find_op(stage, node.op).flops(Args(dict(node.attrs), node.type), types, node.type))


def _too_large(stage: Stage, node: Node, why: str) -> GraphError:
    at = f" (line {node.line})" if node.line else ""
    return GraphError(f"{node.op}{at} of the {stage} program {why}. Reduce before combining").in_line(
        node.line
    )
