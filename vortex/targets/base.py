"""What a target is: the code that runs a graph and the attention over what it chose.

A target is stateless and may be shared; a program belongs to one decode (its buffers are not thread-safe).
To add one, implement `Target` and add it to `vortex.targets.TARGETS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from vortex.config import Dtype
from vortex.graph.geometry import Geometry
from vortex.runtime.attention import Workspace
from vortex.runtime.plan import BlockList, Quota, SparseRows
from vortex.runtime.pool import KVPool, PageTable
from vortex.runtime.table import BlockIds

if TYPE_CHECKING:
    from vortex.graph.model import FlowGraph, Selection


@dataclass
class LayerCache:
    """What a layer keeps: its pool, and for a sparse layer one `[blocks, r, c]` tensor per field and one
    `[rows of all requests, r, c]` per request field.

    `index` is the layer's number in the model. Fields start as zeros and hold values rounded to the config's
    dtype, in float32 or as that dtype.
    """

    index: int
    pool: KVPool
    fields: dict[str, torch.Tensor] = field(default_factory=dict)
    requests: dict[str, torch.Tensor] = field(default_factory=dict)


class Program(Protocol):
    """A graph compiled for one geometry and one number format."""

    geometry: Geometry
    dtype: Dtype
    fields: dict[str, tuple[int, int]]
    """Inner shape of every field of blocks that the caller must allocate."""
    request_fields: dict[str, tuple[int, int]]
    """Inner shape of every field of rows."""
    selections: tuple[Selection, ...]
    """What the flow's output is made of: one selection, or those of a union."""

    def summarize(self, layer: LayerCache, blocks: slice | torch.Tensor) -> None:
        """Run the cache stage for finished blocks, given as a range of block ids or as ids `[blocks]`."""
        ...

    def scores(self, q: torch.Tensor, layer: LayerCache, table: BlockIds, rows: SparseRows) -> torch.Tensor:
        """Score of every block for each selection, `[selections, rows, rows.blocks]` in float32, not yet
        rounded. Fields that the flow saves are written once all scores are known.

        `q` is `[rows, group, head_dim]`; what stands outside `rows.valid` has no meaning.
        """
        ...


class Target(Protocol):
    """Programs, selection and attention of one backend."""

    name: str

    def program(self, graph: FlowGraph, geometry: Geometry, dtype: Dtype) -> Program:
        """Compile. Raises GuardError where the graph does not serve the geometry."""
        ...

    def select(self, scores: torch.Tensor, rows: SparseRows, quota: Quota) -> torch.Tensor:
        """Positions `[rows, quota.most]` of the best blocks, best first; the first `quota.k` of a row count.

        Ties go to the lower position, NaN ranks last.
        """
        ...

    def attend(
        self,
        q: torch.Tensor,
        pool: KVPool,
        blocks: torch.Tensor,
        listed: BlockList,
        block_size: int,
        scale: float,
        work: Workspace,
    ) -> torch.Tensor:
        """Attention over the block ids `[rows, width]` of a list, reading nothing else: `[rows, group,
        value_dim]`.
        """
        ...

    def attend_dense(
        self, q: torch.Tensor, pool: KVPool, pages: PageTable, seq_len: np.ndarray, heads: int, scale: float
    ) -> torch.Tensor:
        """Attention over all tokens, `[rows, group, value_dim]`; `seq_len [rows]`, `heads` neighbouring rows
        are one request.
        """
        ...
