"""Block top-k for grouped queries: score = max_h softmax_blocks(0.09 q_h . mean_t(k)).

Vortex (arXiv 2606.06453).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, Max, Softmax, topK


@register("gqa_block_sparse_attention")
class GQABlockSparseAttention(vFlow):
    """A block is as good as the largest share of attention that any head of the group would give its
    centroid."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.logits = GeMM()
        self.share = Softmax(dim=0, scale=0.09)
        self.best_head = Max(dim=2)
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        logits = self.logits(q, cache["centroids"], ctx=ctx)  # [S, 1, group]
        share = self.share(logits, ctx=ctx)
        score = self.best_head(share, ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
