"""The context of each stage: filled once, from what an engine's model runner has and what was traced."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.vortex.targets.generated import SHIPPED
from vortex.abs import ContextBase
from vortex.cache.context import Context as CacheContext
from vortex.cache.context import get_ctx as cache_ctx
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.flow import build_vflow, load_graph
from vortex.graph import FlowGraph, Geometry, Stage
from vortex.indexer.context import Context as IndexerContext
from vortex.indexer.context import get_ctx as indexer_ctx
from vortex.targets import get_target
from vortex.targets.triton import TritonProgram
from vortex.targets.triton import module as modules

PUBLISHED = [
    "max_new_tokens_per_batch",
    "page_size",
    "total_num_pages",
    "block_size",
    "num_blocks_per_page",
    "total_num_blocks",
    "head_dim",
    "head_num",
    "num_sms",
    "tensor_list",
    "op_list",
    "output_tensor_to_op_list",
    "op_to_input_tensor_list",
    "op_to_output_tensor_list",
    "sparse_attention_name",
    "impl_backend",
    "tensor_id_to_tensor_name_map",
    "compilation_header_lines",
    "auxilary_func_def_lines",
    "compilation_cache_dir",
    "name",
    "mode",
    "vortex_dtype",
]


@dataclass
class ServerArgs:
    chunked_prefill_size: int | None = 8192
    max_prefill_tokens: int = 16384
    tp_size: int = 2


@dataclass
class ModelConfig:
    head_dim: int = 128
    context_len: int = 40960
    kv_lora_rank: int = 512
    qk_rope_head_dim: int = 64
    kv_heads: int = 8

    def get_num_kv_heads(self, tensor_parallel_size: int) -> int:
        return max(1, self.kv_heads // tensor_parallel_size)


@dataclass
class Runner:
    """The attributes of SGLang 0.5.16's ModelRunner that a context reads, under their names."""

    page_size: int = 64
    max_total_num_tokens: int = 64 * 100
    max_running_requests: int = 256
    device: str = "cpu"
    gpu_id: int = 0
    server_args: ServerArgs = field(default_factory=ServerArgs)
    model_config: ModelConfig = field(default_factory=ModelConfig)


@dataclass
class Parent:
    config: VortexConfig
    graph: FlowGraph | None = None
    flow: Any = None
    program: Any = None


def parent(name: str = "gqa_quest_sparse_attention", **settings: Any) -> Parent:
    return Parent(VortexConfig(module_name=name, **settings), load_graph(name))


@pytest.fixture(params=[CacheContext, IndexerContext])
def context(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_every_published_name_is_there_before_and_after(context: Any) -> None:
    before = {name: getattr(context, name) for name in PUBLISHED}
    assert (before["tensor_list"], before["block_size"], before["mode"]) == ([], 0, "profile")
    assert context.create(parent(), Runner()) is None
    after = {name: getattr(context, name) for name in PUBLISHED}
    empty = {"compilation_header_lines", "auxilary_func_def_lines", "compilation_cache_dir", "num_sms"}
    assert {name for name, value in after.items() if not value} == empty
    assert isinstance(context, ContextBase)


def test_the_sizes(context: Any) -> None:
    context.create(parent(block_size=16, dtype="float16", compilation_cache_dir="kernels"), Runner())
    assert (context.page_size, context.block_size, context.num_blocks_per_page) == (64, 16, 4)
    assert (context.total_num_pages, context.total_num_blocks) == (100, 400)
    assert (context.head_dim, context.head_num, context.num_sms) == (128, 4, 0)
    assert (context.max_new_tokens_per_batch, context.mode, context.impl_backend) == (
        8192,
        "execute",
        "triton",
    )
    assert (str(context.vortex_dtype), context.compilation_cache_dir) == ("torch.float16", "kernels")
    assert (context.sparse_attention_name, context.name) == ("gqa_quest_sparse_attention", str(context.stage))


@pytest.mark.parametrize(
    ("runner", "tokens"),
    [
        (Runner(server_args=ServerArgs(chunked_prefill_size=-1)), 40960),
        (Runner(server_args=ServerArgs(None, max_prefill_tokens=65536)), 65536),
        (Runner(server_args=ServerArgs(chunked_prefill_size=128)), 256),
    ],
)
def test_a_batch_is_a_chunk_a_prefill_or_the_running_requests(runner: Runner, tokens: int) -> None:
    context = CacheContext()
    context.create(parent(), runner)
    assert context.max_new_tokens_per_batch == tokens


def test_latents_are_one_head(context: Any) -> None:
    context.create(parent("quest_mla"), Runner())
    assert (context.head_dim, context.head_num) == (576, 1)


def test_it_is_filled_once(context: Any) -> None:
    context.create(parent(), Runner())
    with pytest.raises(RuntimeError, match="overwrite=True"):
        context.create(parent(), Runner(page_size=32))
    assert context.page_size == 64
    context.compilation_header_lines.append("#include <cuda.h>")
    context.create(parent(), Runner(page_size=32), overwrite=True)
    assert (context.page_size, context.compilation_header_lines) == (32, [])


def test_each_stage_has_one_instance() -> None:
    assert cache_ctx() is cache_ctx()
    assert cache_ctx() is not indexer_ctx()
    assert (cache_ctx().stage, indexer_ctx().stage) == (Stage.CACHE, Stage.INDEXER)


def test_the_lists_are_the_traced_program(context: Any) -> None:
    """Every op's operands and results, looked up through the lists, are those of the graph."""
    made_by = parent()
    context.create(made_by, Runner())
    graph, stage = made_by.graph, context.stage
    assert graph is not None
    assert context.op_list == list(graph.program(stage))
    for op, node in enumerate(context.op_list):
        taken = [context.tensor_list[at].type for at in context.op_to_input_tensor_list[op]]
        assert taken == [graph.type_of(stage, ref) for ref in node.inputs]
        result, *fields = context.op_to_output_tensor_list[op]
        assert context.tensor_list[result].type == node.type
        assert [context.tensor_list[at].name for at in fields] == [node.output] * (node.output is not None)
        assert {context.output_tensor_to_op_list[at] for at in (result, *fields)} == {op}
    names = context.tensor_id_to_tensor_name_map
    assert names == {at: tensor.name for at, tensor in enumerate(context.tensor_list)}
    assert len(set(names.values())) == len(names)
    assert ("q" in names.values()) == (stage is Stage.INDEXER)


def test_a_flow_that_was_initialised_gives_its_graph(context: Any) -> None:
    flow = build_vflow("gqa_quest_sparse_attention")
    giver = Parent(VortexConfig(), flow=flow)
    with pytest.raises(ConfigError, match=r"parent\.graph is missing.*initialize"):
        context.create(giver, Runner())
    flow.initialize(16, 128)  # type: ignore[attr-defined]
    context.create(giver, Runner())
    assert context.op_list


GEOMETRIES = {"gqa": Geometry(16, 128, 4), "mla": Geometry.mla(16, 512, 64, 20)}


def generated(name: str, folder: Path, target: str = "triton") -> Parent:
    """A flow with the program that runs it."""
    made = parent(name, compilation_cache_dir=str(folder))
    assert made.graph is not None
    geometry = GEOMETRIES[made.graph.kind]
    made.program = (
        TritonProgram(made.graph, geometry, "bfloat16", cache_dir=str(folder))
        if target == "triton"
        else get_target(target).program(made.graph, geometry, "bfloat16")
    )
    return made


@pytest.mark.parametrize("name", SHIPPED)
def test_a_generated_program_is_what_it_says(context: Any, name: str, tmp_path: Path) -> None:
    """Header, functions and names are those of the module in the folder: a file is written only when a kernel
    is launched, so that its text is looked at here."""
    made = generated(name, tmp_path)
    context.create(made, Runner())
    text = made.program.source
    header, functions = context.compilation_header_lines, context.auxilary_func_def_lines
    assert "\n".join(header) in text
    assert all(line in text.split("\n") for line in functions)
    heads = [line for line in functions if line.startswith("def ")]
    assert heads
    assert len(heads) + len(made.program.module.kernels) + 1 == text.count("\ndef ")
    assert context.compilation_cache_dir == str(tmp_path)
    assert modules.written(text, made.program.cache_dir).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_tensors_have_the_names_of_the_generated_source(context: Any, name: str, tmp_path: Path) -> None:
    """A name that is not the traced one occurs in the source; every name that the generator gave is a
    tensor's, unless the target has rewritten ops of the indexer."""
    made = generated(name, tmp_path)
    context.create(made, Runner())
    names = context.tensor_id_to_tensor_name_map
    assert set(names) == set(range(len(context.tensor_list)))
    words = set(re.findall(r"\w+", made.program.source))
    assert {names[at] for at, tensor in enumerate(context.tensor_list) if names[at] != tensor.name} <= words
    fields = {field.name for field in made.graph.fields}
    for at, tensor in enumerate(context.tensor_list):
        assert names[at].startswith(("field_", "request_")) == (tensor.name in fields)
    given = set(made.program.module.tensor_names[context.stage].values())
    rewritten = made.program.graph != made.graph.instantiate(made.program.geometry)
    assert given <= set(names.values()) or (rewritten and context.stage is Stage.INDEXER)
    if name == "block_sparse_attention" and context.stage is Stage.CACHE:
        assert names == {0: "field_f0", 1: "k", 2: "v", 3: "mean_0"}


def test_a_program_that_is_not_generated_has_no_lines(context: Any, tmp_path: Path) -> None:
    context.create(generated("quest_mla", tmp_path, "torch"), Runner())
    assert (context.compilation_header_lines, context.auxilary_func_def_lines) == ([], [])
    assert context.compilation_cache_dir == str(tmp_path)
    assert set(context.tensor_id_to_tensor_name_map.values()) == {t.name for t in context.tensor_list}


def without(name: str) -> Callable[[], Runner]:
    def made() -> Runner:
        runner = Runner()
        owner: Any = runner
        *path, last = name.split(".")
        for step in path:
            owner = getattr(owner, step)
        setattr(owner, last, None)
        return runner

    return made


@pytest.mark.parametrize(
    "missing",
    [
        "page_size",
        "max_total_num_tokens",
        "device",
        "server_args",
        "server_args.tp_size",
        "model_config",
        "model_config.head_dim",
        "model_config.get_num_kv_heads",
    ],
)
def test_what_is_missing_is_named_and_nothing_changes(context: Any, missing: str) -> None:
    before = dict(vars(context))
    with pytest.raises(ConfigError, match=rf"model_runner\.{missing} is missing"):
        context.create(parent(), without(missing)())
    assert vars(context) == before
    context.create(parent(), Runner())


def test_what_does_not_fit_is_refused(context: Any) -> None:
    with pytest.raises(ConfigError, match="block_size=128 does not divide the engine's page_size=64"):
        context.create(parent(block_size=128), Runner())
    with pytest.raises(ConfigError, match=r"parent\.config is missing"):
        context.create(object(), Runner())


def test_importing_a_context_is_light() -> None:
    code = (
        "import sys, vortex.cache.context, vortex.indexer.context\n"
        "print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
