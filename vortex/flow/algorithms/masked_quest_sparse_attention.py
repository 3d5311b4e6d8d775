"""Quest without the first 8 features: score = max_h sum_{d >= 8} max(q_hd kmax_d, q_hd kmin_d).

Vortex (arXiv 2606.06453), after Quest (arXiv 2406.10774).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Max as CMax
from vortex.cache import Min as CMin
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import MaskSlice, Max, Maximum, Multiply, Sum, topK


@register("masked_quest_sparse_attention")
class MaskedQuestSparseAttention(vFlow):
    """The first features turn fastest under RoPE: over a block their extremes bound little."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = CMax(dim=1)
        self.smallest = CMin(dim=1)
        self.mask = MaskSlice(0, 8, 2, alpha=0.0, beta=1.0)
        self.masked = Multiply()
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
        query = self.masked(q, self.mask(q, ctx=ctx), ctx=ctx)  # [1, group, head_dim]
        high = self.with_largest(query, cache["max"], ctx=ctx)  # [S, group, head_dim]
        low = self.with_smallest(query, cache["min"], ctx=ctx)
        bound = self.bound(high, low, ctx=ctx)
        score = self.best_head(self.sum_features(bound, ctx=ctx), ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
