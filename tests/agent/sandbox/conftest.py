from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.sandbox import Limits, Sandbox

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

REACH_OS = """
loaded = ().__class__.__base__.__subclasses__()
os = [c for c in loaded if c.__name__ == "_wrap_close"][0].__init__.__globals__
sys = os["sys"]
python = sys.modules["builtins"]
"""
"""Puts the globals of the module `os` into `os`: what code that got past the first layer starts from."""


@pytest.fixture(scope="session")
def good() -> str:
    return GOOD


@pytest.fixture(scope="session")
def reach_os() -> str:
    return REACH_OS


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(cpu_s=0.3, wall_s=2.0)) as opened:
        yield opened
