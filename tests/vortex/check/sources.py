"""Flow files that the checks are tried on."""

from __future__ import annotations

GOOD = '''\
import torch
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import GeMM, Mean, topK
from vortex_torch.cache import Mean as CMean
from vortex_torch.abs import ContextBase


@register("mean_centroid")
class MeanCentroid(vFlow):
    """Mean query against mean key."""

    def __init__(self):
        super().__init__()
        self.mean, self.score, self.select, self.summary = Mean(dim=1), GeMM(), topK(), CMean(dim=1)

    def create_cache(self, block_size, head_dim):
        return {"centroids": (1, head_dim)}

    def forward_cache(self, cache, loc: torch.Tensor, ctx: ContextBase):
        self.summary(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: torch.Tensor, o: torch.Tensor, cache, ctx: ContextBase):
        score = self.score(self.mean(q, ctx=ctx), cache["centroids"], ctx=ctx)
        self.select(score, o, ctx=ctx)
'''
