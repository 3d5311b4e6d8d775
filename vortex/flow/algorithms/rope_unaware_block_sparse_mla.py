"""Block top-k by the content part of the latent: score = mean_h(q_nope) . mean_t(kv_c).

Vortex (arXiv 2606.06453).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, MaskSlice, Mean, Multiply, topK


@register("rope_unaware_block_sparse_mla")
class RopeUnawareBlockSparseMLA(vFlowMLA):
    """As rope_aware_block_sparse_mla, with the RoPE features of q masked to 0: position does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.mean_query = Mean(dim=1)
        self.content = Multiply()
        self.score = GeMM()
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        self.mask = MaskSlice(0, kv_lora_rank, 2)
        return {"centroids": (1, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, latent]
        content = self.content(query, self.mask(query, ctx=ctx), ctx=ctx)
        score = self.score(content, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
