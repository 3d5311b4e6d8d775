# mypy: ignore-errors
# ruff: noqa: I001, UP006, UP035
from typing import Dict, Tuple

import torch

from vortex_torch.abs import ContextBase
from vortex_torch.cache import Mean as CMean
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import GeMM, Mean, topK


@register("custom_sparse_attention")
class CustomSparseAttention(vFlow):
    def __init__(self):
        super().__init__()
        # indexer-side ops
        self.mean = Mean(dim=1)
        self.gemm = GeMM()
        self.output_func = topK()
        # cache-side ops
        self.reduction = CMean(dim=1)

    def forward_indexer(
        self, q: torch.Tensor, o: torch.Tensor, cache: Dict[str, torch.Tensor], ctx: ContextBase
    ):
        q_mean = self.mean(q, ctx=ctx)
        score = self.gemm(q_mean, cache["centroids"], ctx=ctx)
        self.output_func(score, o, ctx=ctx)

    def forward_cache(self, cache: Dict[str, torch.Tensor], loc: torch.Tensor, ctx: ContextBase):
        self.reduction(cache["k"], cache["centroids"], loc=loc, ctx=ctx)

    def create_cache(self, block_size: int, head_dim: int) -> Dict[str, Tuple[int, int]]:
        return {"centroids": (1, head_dim)}
