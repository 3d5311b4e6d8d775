"""Running average: score = 0.5 (score of the step before) + mean_h(q) . mean_t(k).

Vortex (arXiv 2606.06453).
"""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import Fill
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import Add, GeMM, Load, Mean, Save, topK


@register("running_avg_block_sparse")
class RunningAvgBlockSparse(vFlow):
    """A block that mattered in the last steps keeps a part of its score. Needs the engine's prefix cache
    off."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.start = Fill(alpha=0.0)
        self.mean_query = Mean(dim=1)
        self.product = GeMM()
        self.previous = Load()
        self.average = Add(alpha=0.5, beta=1.0)
        self.keep = Save()
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, head_dim), "running_score": (1, 1)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["k"], cache["centroids"], loc=loc, ctx=ctx)
        self.start(cache["running_score"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, head_dim]
        product = self.product(query, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        previous = self.previous(cache["running_score"], ctx=ctx)
        score = self.average(previous, product, ctx=ctx)
        self.keep(score, cache["running_score"], ctx=ctx)
        self.select(score, o, ctx=ctx)
