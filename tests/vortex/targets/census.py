"""What a sample of generated cases contains, so that a test can say that nothing is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

import numpy as np

from tests.vortex.targets.cases import FLOWS
from tests.vortex.targets.generated import BLOCK_SIZES, HEAD_DIMS, LATENTS, SHIPPED, Case, Numbers, Stored
from vortex.config import Dtype
from vortex.graph import FlowGraph, Format, Stage
from vortex.ops import OPS
from vortex.ops.params import AxisParam
from vortex.runtime.plan import make_plan
from vortex.targets.rewrite import bound_as_products

VALUES = {
    "block_size": BLOCK_SIZES,
    "head_dim": HEAD_DIMS,
    "latent": (None, *LATENTS),
    "group": range(1, 17),
    "heads": (1, 2),
    "scattered": (False, True),
    "bos": range(1, 5),
    "eos": range(1, 5),
    "dtype": get_args(Dtype),
    "stored": get_args(Stored),
    "numbers": get_args(Numbers),
    "layer": (0, 1, 5),
    "steps": (1, 2, 3),
    "flow": (None, *SHIPPED, *FLOWS),
}
EDGES = (
    "a row of one token",
    "a row of one block",
    "a row with reserved blocks only",
    "a row of one block more than its budget",
    "dense and sparse rows in one batch",
    "rows evenly spaced in the pool",
    "a block finished between two steps",
    "a row that becomes sparse between two steps",
    "keys read by the indexer",
    "a saved field of blocks",
    "a saved field of requests",
    "a union",
    "a union of more blocks than a row has",
    "a bound that is rewritten",
    "a bound that must not be rewritten",
    "a product of two operands with blocks",
    "a product of two operands without blocks",
)
EXPECTED = {f"{name}={value}" for name, values in VALUES.items() for value in values}
EXPECTED |= {f"op {stage}.{name}" for stage, name in OPS} | set(EDGES)
EXPECTED |= {
    f"op {stage}.{name} dim={dim}"
    for (stage, name), op in OPS.items()
    for param in op.params
    if isinstance(param, AxisParam)
    for dim in (param.choices or {}).get(stage, (1, 2))
}


def found_in(case: Case) -> set[str]:
    """Which of EXPECTED a case contains; only ops that have an effect count."""
    values = {name for name in VALUES if not (name == "head_dim" and case.latent)}
    found = {f"{name}={getattr(case, name)}" for name in values}
    found |= {f"op {stage}.{node.op}" for stage, node in case.graph.nodes()}
    found |= {f"op {stage}.{node.op} dim={dict(node.attrs).get('dim')}" for stage, node in case.graph.nodes()}
    return found | {EDGES[at] for at, holds in enumerate(_edges(case)) if holds}


def covering(cases: Iterable[Case]) -> Iterator[Case]:
    """Those of `cases` that have something of EXPECTED that no earlier one has; flows count as random graphs
    do."""
    missing = {item for item in EXPECTED if not item.startswith("flow=")}
    for case in cases:
        found = found_in(case)
        if missing & found:
            yield case
        missing -= found


def _edges(case: Case) -> Iterator[bool]:
    """In the order of EDGES."""
    graph, size, reserved = case.graph, case.block_size, case.bos + case.eos
    lengths = np.array(case.lengths)
    plans = [make_plan(lengths + step, size, case.config, None) for step in range(case.steps)]
    first = plans[0]
    yield 1 in case.lengths
    yield size in case.lengths
    yield bool((first.n <= reserved).any())
    yield bool((first.n == reserved + case.topk_val + 1).any())
    yield first.sparse.any() and not first.sparse.all()
    yield not case.scattered and len({-(-length // 128) for length in case.lengths}) == 1
    yield any(((plan.seq_len - 1) % size == 0)[plan.sparse].any() for plan in plans[1:])
    yield bool((plans[-1].sparse > first.sparse).any())
    injected = {field.name for field in graph.injected}
    yield any(ref.name in injected for node in graph.indexer for ref in node.inputs)
    saved = [graph.field(node.output).format for node in graph.indexer if node.output is not None]
    yield Format.PAGED in saved
    yield Format.SLOTTED in saved
    union = graph.selector.op == "Union"
    yield union
    between = [int(n) - reserved for n in first.n[first.sparse]]
    yield union and any(pick.k > room for pick in graph.selections for room in between if pick.k)
    bounds, rewritten = _bounds(graph), bound_as_products(graph) is not graph
    yield rewritten
    yield bounds and not rewritten
    products = [
        [graph.type_of(Stage.INDEXER, ref).has_blocks for ref in node.inputs]
        for node in graph.indexer
        if node.op == "GeMM"
    ]
    yield any(all(blocks) for blocks in products)
    yield any(not any(blocks) for blocks in products)


def _bounds(graph: FlowGraph) -> bool:
    """Whether something looks like the bound of Quest."""
    for node in graph.indexer:
        above = [graph.indexer[ref.node] for ref in node.inputs if ref.node >= 0]
        if node.op == "Sum" and node.attr("dim") == 2 and [top.op for top in above] == ["Maximum"]:
            sides = [graph.indexer[ref.node].op for ref in above[0].inputs if ref.node >= 0]
            if sides == ["Multiply", "Multiply"]:
                return True
    return False
