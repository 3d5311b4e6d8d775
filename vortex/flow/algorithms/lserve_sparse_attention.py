"""LServe (arXiv 2502.14866): score = max_h max over sub-blocks s of sum_d max(q_hd kmax_sd, q_hd kmin_sd)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import MaxInterleave, MinInterleave
from vortex.flow.algorithms.sub_blocks import sub_blocks
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import Add, GeMM, Max, Relu, topK


@register("lserve_sparse_attention")
class LServeSparseAttention(vFlow):
    """Quest's bound for every 16 tokens: a large block is as good as its best sub-block."""

    def __init__(self) -> None:
        super().__init__()
        self.positive = Relu()
        self.negative = Add(beta=-1.0)
        self.with_largest = GeMM()
        self.with_smallest = GeMM()
        self.bound = Add()
        self.best_sub_block = Max(dim=1)
        self.best_head = Max(dim=2)
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        rows = sub_blocks(block_size)
        self.largest = MaxInterleave(dim=1, k=block_size // rows)
        self.smallest = MinInterleave(dim=1, k=block_size // rows)
        return {"max": (rows, head_dim), "min": (rows, head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.largest(cache["k"], cache["max"], loc=loc, ctx=ctx)
        self.smallest(cache["k"], cache["min"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        # max(q kmax, q kmin) = max(q, 0) kmax + min(q, 0) kmin, so the sum over features is two products.
        positive = self.positive(q, ctx=ctx)  # [1, group, head_dim]
        negative = self.negative(q, positive, ctx=ctx)
        high = self.with_largest(positive, cache["max"], ctx=ctx)  # [S, sub_blocks, group]
        low = self.with_smallest(negative, cache["min"], ctx=ctx)
        best = self.best_sub_block(self.bound(high, low, ctx=ctx), ctx=ctx)  # [S, 1, group]
        score = self.best_head(best, ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
