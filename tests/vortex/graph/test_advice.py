"""What is legal and probably not meant, and the line of the flow's file that says it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from vortex.config import VortexConfig
from vortex.errors import FlowAdvice
from vortex.flow import get, list_keys, load_graph, trace_source
from vortex.graph.advice import advice

HEAD = (
    "from vortex_torch.flow import {base}, register\n"
    "from vortex_torch.indexer import GeMM, Load, Max, Mean, Multiply, Save, topK\n"
    "import vortex_torch.cache as C\n"
)
BODY = """
@register({name!r})
class Advised({base}):
    def create_cache(self, {sizes}):
        return {fields}
    def create_request_cache(self, {sizes}):
        return {requests}
    def forward_cache(self, cache, loc, ctx):
        C.Mean()(cache[{keys!r}], cache["c"], loc=loc, ctx=ctx)
        {cache}
    def forward_indexer(self, q, o, cache, ctx):
        score = GeMM()(Mean()(q, ctx=ctx), cache["c"], ctx=ctx)
        {indexer}
        topK()(score, o, ctx=ctx)
"""


def source(
    indexer: str = "pass",
    cache: str = "pass",
    fields: str = "",
    requests: str = "",
    kind: str = "gqa",
    name: str = "advised",
) -> str:
    base, sizes, keys = {
        "gqa": ("vFlow", "block_size, head_dim", "k"),
        "mla": ("vFlowMLA", "block_size, kv_lora_rank, qk_rope_head_dim", "latent"),
    }[kind]
    features = "head_dim" if kind == "gqa" else "kv_lora_rank + qk_rope_head_dim"
    values = {
        "name": name,
        "base": base,
        "sizes": sizes,
        "keys": keys,
        "fields": f'{{"c": (1, {features}), {fields}}}',
        "requests": f"{{{requests}}}",
        "cache": cache,
        "indexer": indexer,
    }
    return HEAD.format(base=base) + BODY.format(**values)


def line(text: str, part: str) -> int:
    return next(number for number, at in enumerate(text.splitlines(), 1) if part in at)


def test_a_clean_flow_and_the_shipped_ones_get_none() -> None:
    assert advice(trace_source(source())) == ()
    for name in [name for name in list_keys() if get(name).__module__.startswith("vortex.")]:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FlowAdvice)
            load_graph(name)


@pytest.mark.parametrize("kind", ["gqa", "mla"])
def test_fields_without_a_use(kind: str) -> None:
    text = source(
        kind=kind,
        fields='"spare": (1, 1), "empty": (1, 1), "full": (1, 1)',
        requests='"slot": (1, 1), "zero": (1, 1)',
        cache="C.Fill()(cache['full'], loc=loc, ctx=ctx)",
        indexer="score = Multiply()(Multiply()(score, cache['empty'], ctx=ctx), cache['zero'], ctx=ctx)",
    )
    at = line(text, "cache['empty']")
    assert set(advice(trace_source(text))) == {
        "the field 'spare' is neither written nor read; remove it from create_cache",
        "the field 'slot' is neither written nor read; remove it from create_request_cache",
        f"the field 'empty' is never written and reads as zeros (line {at})",
        f"the field 'zero' is never written and reads as zeros (line {at})",
        f"the field 'full' is written and never read (line {line(text, 'C.Fill')})",
    }


def test_fields_read_for_nothing_are_not_read() -> None:
    text = source(
        fields='"full": (1, 1)',
        cache="C.Fill()(cache['full'], loc=loc, ctx=ctx)",
        indexer="Multiply()(score, cache['full'], ctx=ctx); Max()(cache['k'], ctx=ctx)",
    )
    (sentence,) = advice(trace_source(text))
    assert sentence.startswith("the field 'full' is written and never read")


@pytest.mark.parametrize(("kind", "name"), [("gqa", "k"), ("gqa", "v"), ("mla", "latent")])
@pytest.mark.parametrize("operand", ["cache[{!r}]", "Load()(cache[{!r}], ctx=ctx)"])
def test_reading_whole_blocks_to_score_them(kind: str, name: str, operand: str) -> None:
    x = operand.format(name)
    text = source(kind=kind, indexer=f"score = Max()(Max(dim=2)(GeMM()(q, {x}, ctx=ctx), ctx=ctx), ctx=ctx)")
    assert f"indexer reads all of {name!r} in every step" in advice(trace_source(text))[-1]
    assert advice(trace_source(text))[-1].endswith(f"(line {line(text, 'dim=2')})")


def test_what_is_saved_and_loaded_is_used() -> None:
    text = source(
        fields='"past": (1, 1)',
        requests='"last": (1, 1)',
        indexer="score = Multiply()(score, Load()(cache['past'], ctx=ctx), ctx=ctx)\n"
        "        Save()(score, cache['past'], ctx=ctx)\n"
        "        mean = Mean(dim=2)(Mean()(q, ctx=ctx), ctx=ctx)\n"
        "        score = Multiply()(score, cache['last'], ctx=ctx)\n"
        "        Save()(mean, cache['last'], ctx=ctx)",
    )
    assert advice(trace_source(text)) == ()
    only_saved = source(fields='"past": (1, 1)', indexer="Save()(score, cache['past'], ctx=ctx)")
    at = line(only_saved, "Save()(")
    assert advice(trace_source(only_saved)) == (f"the field 'past' is written and never read (line {at})",)


def test_every_way_to_load_a_file_advises(tmp_path: Path) -> None:
    path = tmp_path / "spare.py"
    path.write_text(source(fields='"spare": (1, 1)', name="with_a_spare_field"))
    with pytest.warns(FlowAdvice, match=r"spare\.py: the field 'spare' is neither"):
        graph = load_graph(path)
    with pytest.warns(FlowAdvice, match=r"spare\.py: the field 'spare' is neither"):
        VortexConfig(module_path=str(path), module_name="with_a_spare_field").load_graph()
    stored = tmp_path / "spare.json"
    stored.write_text(graph.to_json())
    with pytest.warns(FlowAdvice, match=r"spare\.json: the field 'spare' is neither"):
        load_graph(stored)
