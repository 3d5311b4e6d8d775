"""Block top-k by mean centroid: score = mean_h(q) . mean_t(k). Vortex (arXiv 2606.06453)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, Mean, topK


@register("block_sparse_attention")
class BlockSparseAttention(vFlow):
    """The mean query of the group against the mean key of the block."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.mean_query = Mean(dim=1)
        self.score = GeMM()
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, head_dim]
        score = self.score(query, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
