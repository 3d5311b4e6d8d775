"""Flows for MLA that keep state between steps, or unite two selections."""

HEAD = """
from vortex_torch.flow import register, vFlowMLA
from vortex_torch.indexer import Add, GeMM, Load, Max, Mean, Save, TopK, Union, topK
from vortex_torch.cache import Fill, Max as CMax, Mean as CMean
"""
STATEFUL = (
    HEAD
    + """
@register("stateful_mla")
class Stateful(vFlowMLA):
    def __init__(self):
        super().__init__()
        self.centroid, self.start = CMean(dim=1), Fill(alpha=1.0)
        self.mean, self.smooth, self.keep_query = Mean(dim=1), Add(alpha=0.8, beta=1.0), Save()
        self.dot, self.load, self.mix, self.keep_score = GeMM(), Load(), Add(alpha=0.5, beta=1.0), Save()
        self.top = topK()

    def create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):
        return {"c": (1, kv_lora_rank + qk_rope_head_dim), "running": (1, 1)}

    def create_request_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):
        return {"query": (1, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["latent"], cache["c"], loc=loc, ctx=ctx)
        self.start(cache["running"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        query = self.smooth(cache["query"], self.mean(q, ctx=ctx), ctx=ctx)
        self.keep_query(query, cache["query"], ctx=ctx)
        score = self.dot(query, cache["c"], ctx=ctx)
        score = self.mix(self.load(cache["running"], ctx=ctx), score, ctx=ctx)
        self.keep_score(score, cache["running"], ctx=ctx)
        self.top(score, o, ctx=ctx)
"""
)


def union(first: int, second: int) -> str:
    """A flow that reads the `first` best blocks by mean and the `second` best by maximum."""
    return (
        HEAD
        + f"""
@register("union_mla")
class Both(vFlowMLA):
    def __init__(self):
        super().__init__()
        self.centroid, self.peak = CMean(dim=1), CMax(dim=1)
        self.mean, self.by_mean, self.by_peak = Mean(dim=1), GeMM(), GeMM()
        self.first, self.second, self.union = TopK({first}), TopK({second}), Union()

    def create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):
        latent = kv_lora_rank + qk_rope_head_dim
        return {{"c": (1, latent), "m": (1, latent)}}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["latent"], cache["c"], loc=loc, ctx=ctx)
        self.peak(cache["latent"], cache["m"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        query = self.mean(q, ctx=ctx)
        by_mean = self.first(self.by_mean(query, cache["c"], ctx=ctx), ctx=ctx)
        by_peak = self.second(self.by_peak(query, cache["m"], ctx=ctx), ctx=ctx)
        self.union(by_mean, by_peak, o, ctx=ctx)
"""
    )
