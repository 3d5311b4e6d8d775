"""Centred block top-k: score = s - mean_blocks(s), s = mean_h(q) . mean_t(k). Vortex (arXiv 2606.06453)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import Add, GeMM, Mean, topK


@register("centered_block_sparse_attention")
class CenteredBlockSparseAttention(vFlow):
    """The mean centroid score, less its mean over the scored blocks of the row."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.mean_query = Mean(dim=1)
        self.product = GeMM()
        self.mean_score = Mean(dim=0)
        self.centre = Add(beta=-1.0)
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, head_dim]
        product = self.product(query, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        score = self.centre(product, self.mean_score(product, ctx=ctx), ctx=ctx)
        self.select(score, o, ctx=ctx)
