"""Quest (arXiv 2406.10774) for grouped queries: score = max_h sum_d max(q_hd kmax_d, q_hd kmin_d)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Max as CMax
from vortex.cache import Min as CMin
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import Max, Maximum, Multiply, Sum, topK


@register("gqa_quest_sparse_attention")
class GQAQuestSparseAttention(vFlow):
    """An upper bound of q . k over the keys of the block, from their element-wise extremes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = CMax(dim=1)
        self.smallest = CMin(dim=1)
        self.with_largest = Multiply()
        self.with_smallest = Multiply()
        self.bound = Maximum()
        self.sum_features = Sum(dim=2)
        self.best_head = Max(dim=1)
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"max": (1, head_dim), "min": (1, head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.largest(cache["k"], cache["max"], loc=loc, ctx=ctx)
        self.smallest(cache["k"], cache["min"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        high = self.with_largest(q, cache["max"], ctx=ctx)  # [S, group, head_dim]
        low = self.with_smallest(q, cache["min"], ctx=ctx)
        bound = self.bound(high, low, ctx=ctx)
        score = self.best_head(self.sum_features(bound, ctx=ctx), ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
