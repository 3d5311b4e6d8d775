"""Flow files in the style of the published package, import lines included, run as they are and score as their
formulas say, whichever ops they are spelled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vortex.flow.formulas import FORMULAS, Decode
from vortex.errors import GuardError
from vortex.flow import build_vflow, load_graph, trace_flow, trace_source
from vortex.graph import FlowGraph, Geometry

HEAD = """
import torch
from typing import Dict

from vortex_torch.flow import {base}, register
from vortex_torch.indexer import *
from vortex_torch.cache import {cache_ops}
from vortex_torch.abs import ContextBase


@register("{name}")
class Published({base}):
    def __init__(self):
        super().__init__()
        self.output_func = topK()
        {init}

    def create_cache(self, block_size: int, {sizes}):
        {create}

    def forward_cache(self, cache: Dict[str, torch.Tensor], loc: torch.Tensor, ctx: ContextBase):
        {cache}

    def forward_indexer(
        self, q: torch.Tensor, o: torch.Tensor, cache: Dict[str, torch.Tensor], ctx: ContextBase
    ):
        {indexer}
        self.output_func(score, o, ctx=ctx)
"""
CENTROID = {
    "cache_ops": "Mean as CMean",
    "init": "self.mean, self.gemm, self.centroid = Mean(dim=1), GeMM(), CMean(dim=1)",
    "create": "return {'centroids': (1, head_dim)}",
    "cache": "self.centroid(cache['k'], cache['centroids'], loc=loc, ctx=ctx)",
    "indexer": "score = self.gemm(self.mean(q, ctx=ctx), cache['centroids'], ctx=ctx)",
}
CENTERED = CENTROID | {
    "init": CENTROID["init"]
    + "\n        self.over_blocks, self.minus = Mean(dim=0), Add(alpha=1.0, beta=-1.0)",
    "indexer": """s = self.gemm(self.mean(q, ctx=ctx), cache['centroids'], ctx=ctx)
        score = self.minus(s, self.over_blocks(s, ctx=ctx), ctx=ctx)""",
}
ENERGY = CENTROID | {
    "cache_ops": "Mean as CMean, L2Norm as CL2Norm",
    "init": CENTROID["init"]
    + "\n        self.norm, self.energy, self.gate = CL2Norm(dim=2), CMean(dim=1), Multiply()",
    "create": "return {'centroids': (1, head_dim), 'v_energy': (1, 1)}",
    "cache": CENTROID["cache"]
    + """
        norms = self.norm(cache['v'], None, loc=loc, ctx=ctx)
        self.energy(norms, cache['v_energy'], loc=loc, ctx=ctx)""",
    "indexer": CENTROID["indexer"] + "\n        score = self.gate(score, cache['v_energy'], ctx=ctx)",
}
RUNNING = CENTROID | {
    "cache_ops": "Mean as CMean, Fill as CFill",
    "init": CENTROID["init"]
    + "\n        self.fill, self.load, self.save, self.add = CFill(0.0), Load(), Save(), Add(0.5, 1.0)",
    "create": "return {'centroids': (1, head_dim), 'running_score': (1, 1)}",
    "cache": CENTROID["cache"] + "\n        self.fill(cache['running_score'], loc=loc, ctx=ctx)",
    "indexer": CENTROID["indexer"]
    + """
        score = self.add(self.load(cache['running_score'], ctx=ctx), score, ctx=ctx)
        self.save(score, cache['running_score'], ctx=ctx)""",
}
LSERVE = {
    "cache_ops": "MaxInterleave, MinInterleave",
    "init": """self.largest, self.smallest = MaxInterleave(dim=1, k=16), MinInterleave(dim=1, k=16)
        self.high, self.low = Kron(dim=1), Kron(dim=1)
        self.maximum, self.sum, self.max = Maximum(), Sum(dim=2), Max(dim=1)""",
    "create": """assert block_size % 16 == 0
        return {'max': (block_size // 16, head_dim), 'min': (block_size // 16, head_dim)}""",
    "cache": """self.largest(cache['k'], cache['max'], loc=loc, ctx=ctx)
        self.smallest(cache['k'], cache['min'], loc=loc, ctx=ctx)""",
    "indexer": """high = self.high(q, cache['max'], ctx=ctx)
        low = self.low(q, cache['min'], ctx=ctx)
        score = self.max(self.sum(self.maximum(high, low, ctx=ctx), ctx=ctx), ctx=ctx)""",
}
MASKED_QUEST = {
    "cache_ops": "Max as CMax, Min as CMin",
    "init": """self.largest, self.smallest = CMax(dim=1), CMin(dim=1)
        self.mask, self.masked = MaskSlice(0, 8, 2, alpha=0.0, beta=1.0), Multiply()
        self.high, self.low = Multiply(), Multiply()
        self.maximum, self.sum, self.max = Maximum(), Sum(dim=2), Max(dim=1)""",
    "create": "return {'max': (1, head_dim), 'min': (1, head_dim)}",
    "cache": LSERVE["cache"],
    "indexer": """q = self.masked(q, self.mask(q, ctx=ctx), ctx=ctx)
        """
    + LSERVE["indexer"],
}
LATENT = {
    "create": "return {'centroids': (1, kv_lora_rank + qk_rope_head_dim)}",
    "cache": CENTROID["cache"].replace("'k'", "'latent'"),
}
ROPE_AWARE = CENTROID | LATENT
ROPE_WEIGHTED = ROPE_AWARE | {
    "init": CENTROID["init"] + "\n        self.times = Multiply()",
    "create": """self.rope = MaskSlice(0, kv_lora_rank, 2, alpha=0.75, beta=0.25)
        """
    + LATENT["create"],
    "indexer": """query = self.mean(q, ctx=ctx)
        query = self.times(query, self.rope(query, ctx=ctx), ctx=ctx)
        score = self.gemm(query, cache['centroids'], ctx=ctx)""",
}
FLOWS = {
    "block_sparse_attention": CENTROID,
    "centered_block_sparse_attention": CENTERED,
    "venergy_gated_centroid": ENERGY,
    "running_avg_block_sparse": RUNNING,
    "lserve_sparse_attention": LSERVE,
    "masked_quest_sparse_attention": MASKED_QUEST,
    "rope_aware_block_sparse_mla": ROPE_AWARE,
    "rope_weighted_block_sparse_mla_b25": ROPE_WEIGHTED,
}
SPELLED_DIFFERENTLY = {"lserve_sparse_attention"}


def source(name: str) -> str:
    mla = "mla" in name
    sizes = "kv_lora_rank: int, qk_rope_head_dim: int" if mla else "head_dim: int"
    base = "vFlowMLA" if mla else "vFlow"
    return HEAD.format(base=base, sizes=sizes, name=f"my_{name}", **FLOWS[name])


def traced(name: str) -> FlowGraph:
    return trace_source(source(name))


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("name", FLOWS)
def test_scores_are_the_formula(name: str, block_size: int) -> None:
    Decode(traced(name), block_size, FORMULAS[name]).run(steps=2)


@pytest.mark.parametrize("name", FLOWS)
def test_the_same_ops_are_the_shipped_flow(name: str) -> None:
    same = traced(name).hash == load_graph(name).hash
    assert same == (name not in SPELLED_DIFFERENTLY)


def test_a_file_is_found_by_its_registered_name(tmp_path: Path) -> None:
    file = tmp_path / "my_flow.py"
    file.write_text(source("venergy_gated_centroid"))
    flow = build_vflow("my_venergy_gated_centroid", user_file=file)
    assert trace_flow(flow).hash == traced("venergy_gated_centroid").hash


def test_an_assertion_on_the_block_size_is_a_guard() -> None:
    graph = traced("lserve_sparse_attention")
    assert [(str(f.rows), str(f.cols)) for f in graph.fields] == [("block_size//16", "head_dim")] * 2
    assert graph.guards == ("block_size%16 == 0",)
    with pytest.raises(GuardError, match="block_size%16 == 0"):
        graph.instantiate(Geometry(8, 64, 4))
