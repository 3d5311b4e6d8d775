"""Sub-block centroids of content: score = max over sub-blocks s of mean_h(q_nope) . mean_{t in s}(kv_c).

Vortex (arXiv 2606.06453), after LServe (arXiv 2502.14866).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import MeanInterleave
from vortex.flow.algorithms.sub_blocks import sub_blocks
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, MaskSlice, Max, Mean, Multiply, topK


@register("rope_unaware_lserve_centroid_mla")
class RopeUnawareLServeCentroidMLA(vFlowMLA):
    """As lserve_centroid_mla, with the RoPE features of q masked to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_query = Mean(dim=1)
        self.content = Multiply()
        self.product = GeMM()
        self.best_sub_block = Max(dim=1)
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        self.mask = MaskSlice(0, kv_lora_rank, 2)
        rows = sub_blocks(block_size)
        self.centroid = MeanInterleave(dim=1, k=block_size // rows)
        return {"centroids": (rows, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, latent]
        content = self.content(query, self.mask(query, ctx=ctx), ctx=ctx)
        products = self.product(content, cache["centroids"], ctx=ctx)  # [S, sub_blocks, 1]
        score = self.best_sub_block(products, ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
