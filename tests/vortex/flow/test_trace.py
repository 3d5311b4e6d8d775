"""One trace serves every geometry that its guards allow, whatever Python does with the sizes."""

from __future__ import annotations

import pytest

from tests.vortex.flow.flows import flow
from vortex.errors import FlowTypeError, GuardError
from vortex.flow import build_vflow, trace_flow, trace_source
from vortex.graph import FlowGraph, Format, Geometry, RefKind


def graph_of(**parts: str) -> FlowGraph:
    return trace_source(flow(**parts))


def test_sizes_stay_symbols() -> None:
    graph = graph_of(fields='{"c": (1, head_dim), "d": (block_size // 4, 2 * head_dim)}')
    assert [str(size) for field in graph.fields for size in (field.rows, field.cols)] == [
        "1", "head_dim", "block_size//4", "2*head_dim",
    ]  # fmt: skip
    assert graph.guards == ()
    at = graph.instantiate(Geometry(64, 80, 7))
    assert at.hash == graph.hash
    assert (at.indexer[0].type.cols, at.fields[0].cols) == (80, 80)


@pytest.mark.parametrize(
    ("parts", "guards"),
    [
        ({"create": "assert block_size % 16 == 0"}, ("block_size%16 == 0",)),
        ({"create": "assert block_size >= 1 and head_dim > 0 and block_size // 2 >= 0"}, ()),
        ({"create": "assert block_size & (block_size - 1) == 0"}, ("(block_size&(block_size - 1)) == 0",)),
        ({"create": "x = 1 if head_dim > 256 else 2"}, ("head_dim <= 256",)),
        ({"create": "x = 1 / head_dim"}, ("head_dim == 128",)),
        ({"create": "x = math.sqrt(head_dim)"}, ("head_dim == 128",)),
        ({"create": "x = int(block_size)"}, ("block_size == 16",)),
        ({"indexer": "assert q.shape[1] > 1"}, ("group >= 2",)),
        ({"indexer": "assert q.shape == (0, 4, 128)"}, ("group == 4", "head_dim == 128")),
        # Uses that Python does not report: the flow is traced again at other sizes.
        ({"indexer": "x = q\n        for _ in range(q.shape[1]):\n            x = Abs()(x, ctx=ctx)"}, ()),
        ({"create": "self.n = [0] * head_dim", "indexer": "assert len(self.n) == 128"}, ("head_dim == 128",)),
    ],
)
def test_guards(parts: dict[str, str], guards: tuple[str, ...]) -> None:
    assert graph_of(**parts).guards == guards


def test_a_loop_over_a_size_fixes_it_if_the_result_depends_on_it() -> None:
    body = "x = cache['c']\n        for _ in range(q.shape[1]):\n            x = Abs(beta=2.0)(x, ctx=ctx)"
    end = "topK()(GeMM()(Mean()(q, ctx=ctx), x, ctx=ctx), o, ctx=ctx)"
    graph = graph_of(indexer=body, end=end)
    assert graph.guards == ("group == 4",)
    assert sum(node.op == "Abs" for node in graph.indexer) == 4
    with pytest.raises(GuardError, match=r"relies on group == 4, which .*group=2"):
        graph.instantiate(Geometry(16, 128, 2))


def test_a_number_that_python_made_of_a_size_fixes_it() -> None:
    body = "s = Add_Mul(beta=1.5 * q.shape[1])(GeMM()(Mean()(q, ctx=ctx), cache['c'], ctx=ctx), ctx=ctx)"
    assert graph_of(indexer=body, end="topK()(s, o, ctx=ctx)").guards == ("group == 4",)


def test_rules_of_types_hold_at_the_new_sizes_or_the_graph_refuses() -> None:
    end = "topK()(Max(dim=2)(MaskSlice(0, 100, 2)(cache['c'], ctx=ctx), ctx=ctx), o, ctx=ctx)"
    graph = graph_of(end=end.replace("cache['c']", "Load()(cache['c'], ctx=ctx)"))
    assert graph.guards == ()
    graph.instantiate(Geometry(16, 112, 4))
    with pytest.raises(GuardError, match=r"does not serve .*head_dim=64.*MaskSlice.*out of bounds"):
        graph.instantiate(Geometry(16, 64, 4))


def test_sizes_may_be_kept_for_ops_made_later() -> None:
    graph = graph_of(
        create="self.half = MaskSlice(0, head_dim // 2, 2)",
        indexer="m = Mean()(Multiply()(q, self.half(q, ctx=ctx), ctx=ctx), ctx=ctx)",
        end="topK()(GeMM()(m, cache['c'], ctx=ctx), o, ctx=ctx)",
    )
    assert str(graph.indexer[0].attr("end")) == "head_dim//2"
    assert graph.instantiate(Geometry(16, 64, 4)).indexer[0].attr("end") == 32


def test_reading_a_field_after_it_was_written_means_the_new_value() -> None:
    graph = graph_of(
        cache="C.Abs()(cache['c'], cache['d'], loc=loc, ctx=ctx)",
        fields='{"c": (1, head_dim), "d": (1, head_dim)}',
        end="topK()(GeMM()(Mean()(q, ctx=ctx), cache['d'], ctx=ctx), o, ctx=ctx)",
    )
    assert graph.cache[1].inputs[0].kind is RefKind.NODE
    assert [field.name for field in graph.canonical().fields] == ["f0"]  # c is an intermediate now


def test_reading_a_field_before_it_is_written_means_zeros() -> None:
    graph = graph_of(
        cache="C.Exp()(cache['d'], cache['e'], loc=loc, ctx=ctx)\n"
        "        C.Abs()(cache['c'], cache['d'], loc=loc, ctx=ctx)",
        fields='{"c": (1, head_dim), "d": (1, head_dim), "e": (1, head_dim)}',
        end="topK()(GeMM()(Mean()(q, ctx=ctx), cache['e'], ctx=ctx), o, ctx=ctx)",
    )
    canonical = graph.canonical()
    (exp,) = canonical.cache
    zeros = {field.name for field in canonical.fields} - {exp.output}
    assert {exp.inputs[0].name} == zeros


def test_the_output_of_a_cache_op_is_returned() -> None:
    graph = graph_of(
        cache="x = C.Max()(cache['v'], output=cache['d'], loc=loc, ctx=ctx)\n"
        "        C.Abs()(x, None, loc=loc, ctx=ctx)",
        fields='{"c": (1, head_dim), "d": (1, head_dim)}',
    )
    assert graph.cache[2].inputs[0].node == 1


def test_loc_and_ctx_may_be_passed_by_position() -> None:
    assert (
        graph_of(cache="C.Max()(cache['v'], None, loc, ctx)", indexer="Mean()(q, ctx)").hash
        == graph_of().hash
    )


def test_results_that_are_unused_or_used_often() -> None:
    body = "m = Mean()(q, ctx=ctx); GeMM()(m, cache['c'], ctx=ctx); GeMM()(m, cache['c'], ctx=ctx)"
    assert graph_of(indexer=body).hash == graph_of().hash


def test_formats() -> None:
    graph = graph_of(
        indexer="a = Load()(cache['c'], ctx=ctx); b = Mean(dim=0)(a, ctx=ctx)\n"
        "        c = Add()(q, b, ctx=ctx); Add()(c, a, ctx=ctx)"
    )
    assert [node.type.format for node in graph.indexer[:4]] == [
        Format.RAGGED,
        Format.BATCHED,
        Format.BATCHED,
        Format.RAGGED,
    ]


def test_one_object_is_traced_again_and_again() -> None:
    flow_object = build_vflow("gqa_quest_sparse_attention")
    first = trace_flow(flow_object, block_size=16, head_dim=64, group=4)
    assert trace_flow(flow_object, block_size=64, head_dim=128, group=8).hash == first.hash
    assert trace_flow(type(flow_object)).hash == first.hash


def test_a_flow_that_needs_a_size_is_traced_at_that_size() -> None:
    source = flow(create="assert head_dim == 64")
    with pytest.raises(FlowTypeError, match="create_cache raised AssertionError"):
        trace_source(source)
    assert trace_source(source, geometry=Geometry(16, 64, 4)).guards == ("head_dim == 64",)


MLA = """
from vortex_torch.flow import vFlowMLA, register
from vortex_torch.indexer import Mean, GeMM, topK, MaskSlice, Multiply
from vortex_torch.cache import Mean as CMean

@register("unaware")
class Unaware(vFlowMLA):
    def __init__(self):
        super().__init__()
        self.mean, self.score, self.out, self.centroid = Mean(), GeMM(), topK(), CMean()
        self.times = Multiply()

    def create_cache(self, block_size, kv_lora_rank, qk_rope_head_dim):
        self.no_rope = MaskSlice(0, kv_lora_rank, 2)
        return {"centroids": (1, kv_lora_rank + qk_rope_head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["latent"], cache["centroids"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        query = self.mean(self.times(q, self.no_rope(q, ctx=ctx), ctx=ctx), ctx=ctx)
        self.out(self.score(query, cache["centroids"], ctx=ctx), o, ctx=ctx)
"""


def test_mla() -> None:
    graph = trace_source(MLA)
    assert graph.kind == "mla"
    assert [field.name for field in graph.injected] == ["latent"]
    assert str(graph.fields[0].cols) == "kv_lora_rank + qk_rope_head_dim"
    assert FlowGraph.from_json(graph.to_json()) == graph
    at = graph.instantiate(Geometry.mla(64, 256, 32, 8))
    assert at.fields[0].cols == 288
    with pytest.raises(GuardError, match="kv_lora_rank"):
        graph.instantiate(Geometry(64, 256, 8))
    with pytest.raises(FlowTypeError, match="must not declare 'k' key"):
        trace_source(MLA.replace('"centroids": (1', '"k": (1'))
