"""Sub-block centroids of the latent: score = max over sub-blocks s of mean_h(q) . mean_{t in s}(latent_t).

Vortex (arXiv 2606.06453), after LServe (arXiv 2502.14866).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import MeanInterleave
from vortex.flow.algorithms.sub_blocks import sub_blocks
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, Max, Mean, topK


@register("lserve_centroid_mla")
class LServeCentroidMLA(vFlowMLA):
    """Centroids of 16 tokens each: one relevant passage is not averaged away by the rest of a large block."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_query = Mean(dim=1)
        self.product = GeMM()
        self.best_sub_block = Max(dim=1)
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        rows = sub_blocks(block_size)
        self.centroid = MeanInterleave(dim=1, k=block_size // rows)
        return {"centroids": (rows, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, latent]
        products = self.product(query, cache["centroids"], ctx=ctx)  # [S, sub_blocks, 1]
        score = self.best_sub_block(products, ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
