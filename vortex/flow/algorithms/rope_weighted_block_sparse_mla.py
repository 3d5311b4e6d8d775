"""Weighted parts: score = A mean_h(q_nope) . mean_t(kv_c) + B mean_h(q_pe) . mean_t(k_pe), A + B = 1.

Vortex (arXiv 2606.06453).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, MaskSlice, Mean, Multiply, topK


class RopeWeightedBlockSparseMLA(vFlowMLA):
    """B is `percent` / 100. The weights go onto the mean query, once a row."""

    percent = 50

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.mean_query = Mean(dim=1)
        self.weighted = Multiply()
        self.score = GeMM()
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        content, position = (100 - self.percent) / 100, self.percent / 100
        self.weights = MaskSlice(0, kv_lora_rank, 2, alpha=content, beta=position)
        return {"centroids": (1, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, latent]
        weighted = self.weighted(query, self.weights(query, ctx=ctx), ctx=ctx)
        score = self.score(weighted, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)


def _weighted(percent: int) -> type[RopeWeightedBlockSparseMLA]:
    """The flow with B = percent / 100, registered as rope_weighted_block_sparse_mla_b<percent>."""
    members = {"percent": percent, "__module__": __name__, "__doc__": f"B = {percent / 100}."}
    flow = type(f"RopeWeightedBlockSparseMLAB{percent}", (RopeWeightedBlockSparseMLA,), members)
    return register(f"rope_weighted_block_sparse_mla_b{percent}")(flow)


RopeWeightedBlockSparseMLAB10 = _weighted(10)
RopeWeightedBlockSparseMLAB25 = _weighted(25)
RopeWeightedBlockSparseMLAB50 = _weighted(50)
RopeWeightedBlockSparseMLAB75 = _weighted(75)
RopeWeightedBlockSparseMLAB90 = _weighted(90)
RopeWeightedBlockSparseMLAB100 = _weighted(100)
