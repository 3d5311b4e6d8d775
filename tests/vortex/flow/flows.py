"""Flow sources for tests: the Quick Start file, and a frame to put single lines into."""

from __future__ import annotations

QUICK_START = """import torch
from typing import Dict

from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import Mean, GeMM, topK
from vortex_torch.cache import Mean as CMean
from vortex_torch.abs import ContextBase


@register("custom_sparse_attention")
class CustomSparseAttention(vFlow):

    def __init__(self):
        super().__init__()
        # Indexer ops
        self.mean = Mean(dim=1)
        self.gemm = GeMM()
        self.output_func = topK()
        # Cache ops
        self.reduction = CMean(dim=1)

    def forward_indexer(
        self,
        q: torch.Tensor,
        o: torch.Tensor,
        cache: Dict[str, torch.Tensor],
        ctx: ContextBase,
    ):
        q_mean = self.mean(q, ctx=ctx)
        score = self.gemm(q_mean, cache["centroids"], ctx=ctx)
        self.output_func(score, o, ctx=ctx)

    def forward_cache(
        self,
        cache: Dict[str, torch.Tensor],
        loc: torch.Tensor,
        ctx: ContextBase,
    ):
        self.reduction(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def create_cache(self, block_size: int, head_dim: int):
        return {
            "centroids": (1, head_dim),
        }
"""


def flow(
    indexer: str = "",
    cache: str = "",
    fields: str = '{"c": (1, head_dim)}',
    create: str = "pass",
    init: str = "pass",
    end: str = "topK()(GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx), o, ctx=ctx)",
    head: str = "",
) -> str:
    """A mean-centroid flow with extra statements: `indexer` stands in line 23, `cache` in 19, `create` in
    14, `end` in 24."""
    return f"""import math, torch
import vortex_torch.cache as C
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import *
{head}
@register("tested")
class Tested(vFlow):
    def __init__(self):
        super().__init__()
        {init}

    def create_cache(self, block_size, head_dim):
        # sizes may be computed with, asserted and kept
        {create}
        return {fields}

    def forward_cache(self, cache, loc, ctx):
        C.Mean()(cache["k"], cache["c"], loc=loc, ctx=ctx)
        {cache or "pass"}

    def forward_indexer(self, q, o, cache, ctx):
        # scores
        {indexer or "pass"}
        {end}
"""
