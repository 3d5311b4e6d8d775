"""Value energy: score = (mean_h(q) . mean_t(k)) mean_t(|v_t|). Vortex (arXiv 2606.06453)."""

from __future__ import annotations

from vortex.abs import ContextBase
from vortex.cache import L2Norm as CL2Norm
from vortex.cache import Mean as CMean
from vortex.flow.base import vFlow
from vortex.flow.registry import register
from vortex.flow.vtensor import vTensor
from vortex.indexer import GeMM, Mean, Multiply, topK


@register("venergy_gated_centroid")
class VEnergyGatedCentroid(vFlow):
    """A block whose values are small changes the output little, whatever its keys are."""

    def __init__(self) -> None:
        super().__init__()
        self.centroid = CMean(dim=1)
        self.value_norm = CL2Norm(dim=2)
        self.energy = CMean(dim=1)
        self.mean_query = Mean(dim=1)
        self.product = GeMM()
        self.gate = Multiply()
        self.select = topK()

    def create_cache(self, block_size: int, head_dim: int) -> dict[str, tuple[int, int]]:
        return {"centroids": (1, head_dim), "v_energy": (1, 1)}

    def forward_cache(self, cache: dict[str, vTensor], loc: vTensor, ctx: ContextBase) -> None:
        self.centroid(cache["k"], cache["centroids"], loc=loc, ctx=ctx)
        norms = self.value_norm(cache["v"], loc=loc, ctx=ctx)  # [1, block_size, 1]
        self.energy(norms, cache["v_energy"], loc=loc, ctx=ctx)

    def forward_indexer(self, q: vTensor, o: vTensor, cache: dict[str, vTensor], ctx: ContextBase) -> None:
        query = self.mean_query(q, ctx=ctx)  # [1, 1, head_dim]
        product = self.product(query, cache["centroids"], ctx=ctx)  # [S, 1, 1]
        score = self.gate(product, cache["v_energy"], ctx=ctx)
        self.select(score, o, ctx=ctx)
