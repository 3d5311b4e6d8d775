"""Quest (arXiv 2406.10774) on the latent: score = max_h sum_d max(q_hd lmax_d, q_hd lmin_d)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Max as CMax
from vortex.cache import Min as CMin
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import Add, GeMM, Max, Relu, topK


@register("quest_mla")
class QuestMLA(vFlowMLA):
    """An upper bound of the logits q . latent over the tokens of the block, from the latents' extremes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = CMax(dim=1)
        self.smallest = CMin(dim=1)
        self.positive = Relu()
        self.negative = Add(beta=-1.0)
        self.with_largest = GeMM()
        self.with_smallest = GeMM()
        self.bound = Add()
        self.best_head = Max(dim=2)
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        latent = kv_lora_rank + qk_rope_head_dim
        return {"max": (1, latent), "min": (1, latent)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.largest(cache["latent"], cache["max"], loc=loc, ctx=ctx)
        self.smallest(cache["latent"], cache["min"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        # max(q lmax, q lmin) = max(q, 0) lmax + min(q, 0) lmin, so the sum over features is two products.
        positive = self.positive(q, ctx=ctx)  # [1, group, latent]
        negative = self.negative(q, positive, ctx=ctx)
        high = self.with_largest(positive, cache["max"], ctx=ctx)  # [S, 1, group]
        low = self.with_smallest(negative, cache["min"], ctx=ctx)
        score = self.best_head(self.bound(high, low, ctx=ctx), ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)
