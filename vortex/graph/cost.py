"""What a decode step costs: bytes read and written and operations, from the graph and the plan alone.

Counted, once for each kernel (`vortex.graph.fusion`) that touches it: fields, k, v or latent, results passed
between kernels, scores, request fields and constants. Constants are held in float32, everything else in its
stored format. Reserved blocks are not scored, and a row that keeps all its blocks is not scored at all.

Not counted: hits in a cache between kernels, and what a kernel without room for a row reads twice; block
tables and lists of chosen blocks (a few bytes a block); the new token's k and v, the query and the output of
attention, the arithmetic of its softmax, all of which dense attention has too. Summaries are charged evenly
over the tokens of a block, as in a long decode; those of the prompt belong to prefill. A Union is charged
for the most blocks that it can choose, unless the real number is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from vortex.graph.fusion import cut
from vortex.graph.geometry import Geometry
from vortex.graph.model import FlowGraph
from vortex.graph.tally import Tally
from vortex.graph.work import Cost, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RowCosts:
    """The cost of any row (request x kv head) of one graph at one geometry: `step` for a row that is scored,
    `block` for each scored block, `token` for each token attended to. `union`: the most blocks that the two
    selections of a Union choose, which are then attended to instead of those of the plan."""

    block_size: int
    token: Cost
    block: Cost = field(default_factory=Cost)
    step: Cost = field(default_factory=Cost)
    sparse: bool = False
    union: int | None = None

    def row(self, seq_len: int, chosen: int, bos: int = 1, eos: int = 1, attended: int | None = None) -> Cost:
        """The cost of a row of `seq_len` tokens (the current one included) of which the plan lets it read
        `chosen` blocks. `attended`: the blocks that a Union has really chosen, the reserved ones included."""
        n = -(-seq_len // self.block_size)
        if not self.sparse or chosen >= n:
            return self.token * seq_len
        if attended is None:
            attended = chosen if self.union is None else min(n, self.union + bos + eos)
        tokens = seq_len - (n - attended) * self.block_size  # the last block is always attended to
        return self.step + self.block * max(0, n - bos - eos) + self.token * tokens

    def bytes(
        self, seq_len: NDArray[np.int64], chosen: NDArray[np.int64], bos: int = 1, eos: int = 1
    ) -> NDArray[np.float64]:
        """`row(...).bytes` for arrays of rows."""
        import numpy as np

        n = -(-seq_len // self.block_size)
        attended = chosen if self.union is None else np.minimum(n, self.union + bos + eos)
        tokens = seq_len - (n - attended) * self.block_size
        scored = np.maximum(0, n - bos - eos)
        sparse = self.step.bytes + self.block.bytes * scored + self.token.bytes * tokens
        return np.where((chosen < n) & self.sparse, sparse, self.token.bytes * seq_len.astype(np.float64))


@lru_cache(maxsize=4096)
def row_costs(
    graph: FlowGraph | None,
    geometry: Geometry,
    kv_itemsize: int = 2,
    field_itemsize: int = 2,
    sharing: int = 1,
) -> RowCosts:
    """The coefficients of `graph` (None: dense attention).

    `kv_itemsize`: bytes of a number of k, v and latent; `field_itemsize`: of fields and intermediates.
    `sharing`: rows of a layer that share one reading of the constants. Raises GuardError or GraphError where
    the graph does not serve the geometry.
    """
    token = Cost(attention=_token(geometry, kv_itemsize))
    if graph is None:
        return RowCosts(geometry.block_size, token)
    kernels = cut(graph.instantiate(geometry))
    tally = Tally(kernels, kv_itemsize, field_itemsize, sharing)
    picks = [selection.k for selection in kernels.graph.selections if selection.k is not None]
    return RowCosts(
        block_size=geometry.block_size,
        token=token,
        block=Cost(**tally.block),
        step=Cost(**tally.step),
        sparse=True,
        union=sum(picks) if picks else None,
    )


def row_cost(
    graph: FlowGraph | None,
    geometry: Geometry,
    seq_len: int,
    chosen: int,
    kv_itemsize: int = 2,
    field_itemsize: int = 2,
    bos: int = 1,
    eos: int = 1,
) -> Cost:
    """The cost of one row; see `RowCosts.row`."""
    return row_costs(graph, geometry, kv_itemsize, field_itemsize).row(seq_len, chosen, bos, eos)


@dataclass(frozen=True)
class CostReport:
    """`rows`: the cost of one row (kv head) of one layer, for each request. `step`: all rows and layers."""

    rows: tuple[Cost, ...]
    step: Cost


def cost_report(
    graph: FlowGraph | None,
    geometry: Geometry,
    seq_len: Sequence[int],
    chosen: Sequence[int],
    attended: Sequence[int] | None = None,
    *,
    heads: int = 1,
    layers: int = 1,
    bos: int = 1,
    eos: int = 1,
    kv_itemsize: int = 2,
    field_itemsize: int = 2,
) -> CostReport:
    """The cost of a step for a batch, in `heads` kv heads and `layers` layers, none of them skipped.

    `seq_len`, `chosen` (both from a plan) and `attended` have an entry for each request; see `RowCosts.row`.
    A layer reads its constants once a step, for all rows that are scored.
    """
    counts = [None] * len(seq_len) if attended is None else [int(count) for count in attended]
    requests = [(int(n), int(k), count) for n, k, count in zip(seq_len, chosen, counts, strict=True)]
    scored = sum(k * geometry.block_size < n for n, k, _ in requests)
    costs = row_costs(graph, geometry, kv_itemsize, field_itemsize, max(1, scored * heads))
    rows = tuple(costs.row(n, k, bos, eos, count) for n, k, count in requests)
    return CostReport(rows, sum(rows, Cost()) * (heads * layers))


def _token(geometry: Geometry, kv_itemsize: int) -> Work:
    """One token attended to. A latent (MLA) is read once: its first `kv_lora_rank` features are the value."""
    key, value = geometry.head_dim, geometry.kv_lora_rank or geometry.head_dim
    stored = key if geometry.kv_lora_rank else key + value
    return Work(stored * kv_itemsize, 0, 2 * geometry.group * (key + value))
