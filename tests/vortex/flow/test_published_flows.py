"""Flows of the published package that do not ship yet are expressible, and score as their formulas say."""

from __future__ import annotations

import pytest
import torch

from vortex.flow import trace_source
from vortex.graph import FlowGraph, Format, Geometry, RefKind, Stage
from vortex.ops import Args, Row, find_op

AT = Geometry(block_size=32, head_dim=16, group=4)
HEAD = """
from vortex_torch.flow import vFlow, register
from vortex_torch.indexer import *
import vortex_torch.cache as C

@register("published")
class Published(vFlow):
    def create_cache(self, block_size, head_dim):
        assert block_size % 16 == 0
        return {fields}

    def forward_cache(self, cache, loc, ctx):
        {cache}

    def forward_indexer(self, q, o, cache, ctx):
        {indexer}
        topK()(score, o, ctx=ctx)
"""
EXTREMES = """C.MaxInterleave(dim=1, k=16)(cache['k'], cache['max'], loc=loc, ctx=ctx)
        C.MinInterleave(dim=1, k=16)(cache['k'], cache['min'], loc=loc, ctx=ctx)"""
LSERVE = {
    "fields": "{'max': (block_size // 16, head_dim), 'min': (block_size // 16, head_dim)}",
    "cache": EXTREMES,
    "indexer": """up = GeMM()(Relu()(q, ctx=ctx), cache['max'], ctx=ctx)
        n = Relu()(Add_Mul(beta=-1.0)(q, ctx=ctx), ctx=ctx)
        down = GeMM()(n, cache['min'], ctx=ctx)
        score = Max(dim=1)(Max(dim=2)(Add(beta=-1.0)(up, down, ctx=ctx), ctx=ctx), ctx=ctx)""",
}
MASKED_QUEST = {
    "fields": "{'max': (1, head_dim), 'min': (1, head_dim)}",
    "cache": EXTREMES.replace("Interleave(dim=1, k=16)", "()"),
    "indexer": """m = Multiply()(q, MaskSlice(0, 8, 2, alpha=0.0, beta=1.0)(q, ctx=ctx), ctx=ctx)
        best = Maximum()(Multiply()(m, cache['max'], ctx=ctx), Multiply()(m, cache['min'], ctx=ctx), ctx=ctx)
        score = Max(dim=1)(Sum(dim=2)(best, ctx=ctx), ctx=ctx)""",
}
CENTERED = {
    "fields": "{'c': (1, head_dim)}",
    "cache": "C.Mean()(cache['k'], cache['c'], loc=loc, ctx=ctx)",
    "indexer": """s = GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx)
        score = Add(beta=-1.0)(s, Mean(dim=0)(s, ctx=ctx), ctx=ctx)""",
}
ENERGY = {
    "fields": "{'c': (1, head_dim), 'e': (1, 1)}",
    "cache": """C.Mean()(cache['k'], cache['c'], loc=loc, ctx=ctx)
        C.Mean()(C.L2Norm(dim=2)(cache['v'], loc=loc, ctx=ctx), cache['e'], loc=loc, ctx=ctx)""",
    "indexer": "score = Multiply()(GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx), cache['e'], ctx=ctx)",
}
FLOWS = {"lserve": LSERVE, "masked_quest": MASKED_QUEST, "centered": CENTERED, "venergy": ENERGY}


def traced(name: str) -> FlowGraph:
    return trace_source(HEAD.format(**FLOWS[name])).instantiate(AT)


def scores(graph: FlowGraph, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, row: Row) -> torch.Tensor:
    """The input of topK, by the ops' reference semantics: q [1, G, D], k and v [S, block, D]."""
    held = {"k": k, "v": v, **{f.name: torch.zeros(len(k), f.rows.hint, f.cols.hint) for f in graph.fields}}
    score = torch.empty(0)
    for stage in Stage:
        values: list[torch.Tensor] = []
        for node in graph.program(stage):
            op = find_op(stage, node.op)
            inputs = tuple(
                values[ref.node]
                if ref.kind is RefKind.NODE
                else q
                if ref.kind is RefKind.QUERY
                else held[ref.name]
                for ref in node.inputs
            )
            if op.claims_output:
                return inputs[0]
            values.append(op.reference(Args(dict(node.attrs), node.type), inputs, row))
            if node.output is not None:
                held[node.output] = values[-1]
    return score


@pytest.mark.parametrize("name", FLOWS)
def test_scores_are_the_formula(name: str) -> None:
    torch.manual_seed(1)
    row = Row(9, bos=1, eos=2)
    q, k, v = torch.randn(1, 4, 16), torch.randn(9, 32, 16), torch.randn(9, 32, 16)
    graph = traced(name)
    assert graph.indexer[-1].type.format is Format.RAGGED
    want = []
    for s in range(9):
        if name in ("lserve", "masked_quest"):
            groups = k[s].split(16) if name == "lserve" else [k[s]]
            keep = torch.ones(16) if name == "lserve" else torch.tensor([0.0] * 8 + [1.0] * 8)
            bounds = [
                sum(
                    max(float(q[0, h, d] * g[:, d].max()), float(q[0, h, d] * g[:, d].min())) * float(keep[d])
                    for d in range(16)
                )
                for h in range(4)
                for g in groups
            ]
            want.append(max(bounds))
        else:
            dot = float(q[0].mean(0) @ k[s].mean(0))
            want.append(dot * float(v[s].norm(dim=1).mean()) if name == "venergy" else dot)
    expected = torch.tensor(want)
    if name == "centered":
        expected = expected - expected[row.span].mean()
    torch.testing.assert_close(scores(graph, q, k, v, row).flatten(), expected, rtol=1e-4, atol=1e-4)


def test_their_cost_is_that_of_their_fields() -> None:
    assert [(str(f.rows), str(f.cols)) for f in traced("lserve").fields] == [
        ("block_size//16", "head_dim")
    ] * 2
    assert traced("lserve").guards == ("block_size%16 == 0",)
