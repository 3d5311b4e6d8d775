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

TWO = f"{GOOD}\n\n" + GOOD[GOOD.index("@register") :].replace("mean_centroid", "with_spare").replace(
    "MeanCentroid", "WithSpare"
).replace("(1, head_dim)}", '(1, head_dim), "spare": (2, block_size)}')
"""The same flow again, with a field that nobody uses."""

SAVING = """\
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import Add, GeMM, Load, Mean, Save, topK
from vortex_torch.cache import Fill, Mean as CMean


@register("remembers")
class Remembers(vFlow):
    def __init__(self):
        super().__init__()
        self.mean, self.score, self.select, self.summary = Mean(dim=1), GeMM(), topK(), CMean(dim=1)
        self.load, self.add, self.save, self.zero = Load(), Add(alpha=0.5), Save(), Fill()

    def create_cache(self, block_size, head_dim):
        return {"centroids": (1, head_dim), "seen": (1, 1)}

    def forward_cache(self, cache, loc, ctx):
        self.summary(cache["k"], cache["centroids"], loc=loc, ctx=ctx)
        self.zero(cache["seen"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        score = self.score(self.mean(q, ctx=ctx), cache["centroids"], ctx=ctx)
        score = self.add(self.load(cache["seen"], ctx=ctx), score, ctx=ctx)
        self.save(score, cache["seen"], ctx=ctx)
        self.select(score, o, ctx=ctx)
"""

ILL_TYPED = GOOD.replace(
    'self.score(self.mean(q, ctx=ctx), cache["centroids"], ctx=ctx)',
    'self.score(self.mean(q, ctx=ctx), cache["k"], ctx=ctx)',
)
"""Line 23 makes [S, block_size, 1]: no score for topK."""

ONLY_128 = GOOD.replace("        return {", "        assert head_dim == 128\n        return {")
