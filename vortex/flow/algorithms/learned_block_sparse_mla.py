"""Learned query: score = (W[layer] flatten(q)) . mean_t(latent). Vortex (arXiv 2606.06453)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vortex.abs import ContextBase
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlowMLA
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, LearnedQuery, topK

_TENSOR = re.compile(r"layers\.(\d+)\.weight")


@register("learned_block_sparse_mla")
class LearnedBlockSparseMLA(vFlowMLA):
    """One query for all H heads, by a trained map of each layer.

    weights: a safetensors file with a tensor `layers.<layer>.weight [latent, H * latent]` for every layer
    that has a map. Without one, or without a file, W sums the heads.
    """

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.query = LearnedQuery() if weights is None else LearnedQuery(**_read(Path(weights)))
        self.score = GeMM()
        self.select = topK()

    def create_cache(
        self, block_size: int, kv_lora_rank: int, qk_rope_head_dim: int
    ) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.query(q, ctx=ctx)  # [1, 1, latent]
        score = self.score(query, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        self.select(score, o, ctx=ctx)


def _read(file: Path) -> dict[str, Any]:
    """The maps of a file, cut into heads: `Wk [L, H, latent, latent]`, and which of its rows a layer has."""
    import torch
    from safetensors.torch import load_file

    maps: dict[int, torch.Tensor] = {}
    for name, tensor in sorted(load_file(file).items()):
        found = _TENSOR.fullmatch(name)
        if found is None or tensor.dim() != 2 or tensor.shape[1] % tensor.shape[0]:
            shape = " x ".join(map(str, tensor.shape))
            raise ValueError(
                f"{file}: {name} ({shape}) is no map; name it layers.<layer>.weight, of [latent, H * latent]"
            )
        maps[int(found[1])] = tensor.float().reshape(len(tensor), -1, len(tensor)).transpose(0, 1)
    if not maps:
        raise ValueError(f"{file} has no tensors; leave weights out for the sum of the heads")
    rows = {layer: row for row, layer in enumerate(maps)}
    return {"Wk": torch.stack(list(maps.values())), "layer_lookup": rows}
