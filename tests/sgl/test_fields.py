"""What every field of VortexConfig does in a running engine, in numbers computed by hand.

One request: 150 tokens, then 9 new ones. The first comes from the prefill, so 8 steps decode, of 151 to 158
tokens: 10 blocks of 16. The model has 3 layers of 2 kv heads: 48 rows read blocks, of 480 in all. BASE reads
2 + 1 + 1 of every 10.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import TOLERANCE, Answer, apart, ask, forced, random_prompts
from tests.vortex.check.sources import GOOD
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.counters import EngineCounters
from vortex.errors import ConfigError
from vortex.flow import trace_source

BASE = VortexConfig(module_name="gqa_quest_sparse_attention", topk_val=2, max_seq_lens=640)
(PROMPT,) = random_prompts(150)
NEW, STEPS, LAYERS, HEADS, BLOCKS = 9, 8, 3, 2, 10
ROWS = STEPS * LAYERS * HEADS
LOOP = "int blocks = 0; while (2 * blocks < cached_block_len) ++blocks; return blocks;"
POOL = 4096 // 16 + 1
"""Blocks of the KV pool, one page that takes what is padding included."""


@pytest.fixture
def engine(engines: Engines) -> Any:
    """The one engine of these tests. Without overlap a request takes no step too many."""
    return engines.sparse(BASE, disable_overlap_schedule=True)


def run(engine: Any, **fields: Any) -> tuple[Answer, EngineCounters]:
    """The request's answer under BASE with other values of some fields."""
    control.deploy(engine, VortexConfig.model_validate({**BASE.model_dump(), **fields}))
    (answer,) = ask(engine, [PROMPT], NEW)
    return answer, control.counters(engine)


def check(model: PreTrainedModel, answer: Answer, **fields: Any) -> None:
    """The answer is what transformers says under the same fields, and under no others."""
    config = BASE.model_copy(update=fields)
    assert apart(answer.logprobs, forced(model, PROMPT, answer.tokens, config)) < TOLERANCE
    if fields:
        assert apart(answer.logprobs, forced(model, PROMPT, answer.tokens, BASE)) > 100 * TOLERANCE


def refused(engine: Any, **fields: Any) -> str:
    """Why the engine does not take these fields. It goes on with the flow it had."""
    before = control.counters(engine)
    with pytest.raises(ConfigError) as caught:
        control.deploy(engine, VortexConfig.model_validate({**BASE.model_dump(), **fields}))
    assert control.counters(engine) == before
    return str(caught.value)


def test_every_field_is_tested_here() -> None:
    assert {f"test_{name}" for name in VortexConfig.model_fields} <= globals().keys()
    for name in VortexConfig.model_fields:
        assert name in inspect.getsource(globals()[f"test_{name}"])


def test_topk_val(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine)
    check(model, answer)
    assert (counted.decode_steps, counted.sparse_steps) == (STEPS, STEPS)
    assert (counted.rows_sparse, counted.rows_dense) == (STEPS * HEADS, 0)
    assert (counted.blocks_read, counted.blocks_total) == (ROWS * 4, ROWS * 10) == (192, 480)
    answer, counted = run(engine, topk_val=5)
    check(model, answer, topk_val=5)
    assert counted.blocks_read == ROWS * 7 == 336


def test_topk_ratio(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, topk_ratio=0.65)
    check(model, answer, topk_ratio=0.65)
    assert counted.blocks_read == ROWS * 6  # int(10 * 0.65)
    assert run(engine, topk_ratio=0.45)[1].blocks_read == ROWS * 4  # topk_val asks for more
    _, counted = run(engine, topk_ratio=1.0)
    assert (counted.decode_steps, counted.sparse_steps, counted.blocks_read) == (STEPS, 0, 0)


def test_max_topk_val(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, topk_ratio=0.9, max_topk_val=3)
    check(model, answer, topk_ratio=0.9, max_topk_val=3)
    assert counted.blocks_read == ROWS * 5  # 3 + 1 + 1, not 9
    assert run(engine, topk_ratio=0.9)[1].blocks_read == ROWS * 9


def test_block_reserved_bos(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, block_reserved_bos=4)
    check(model, answer, block_reserved_bos=4)
    assert counted.blocks_read == ROWS * 7


def test_block_reserved_eos(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, block_reserved_eos=4)
    check(model, answer, block_reserved_eos=4)
    assert counted.blocks_read == ROWS * 7
    first = run(engine, block_reserved_bos=4)[0]
    assert apart(answer.logprobs, first.logprobs) > 100 * TOLERANCE  # as many blocks, not the same ones


def test_block_size(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, block_size=8)
    check(model, answer, block_size=8)
    assert counted.blocks_read == ROWS * 4
    assert counted.blocks_total == LAYERS * HEADS * (2 * 19 + 6 * 20)  # 151 and 152 tokens, then up to 158
    assert run(engine, block_size=16)[1] == run(engine, block_size=None)[1]  # a page
    assert refused(engine, block_size=32) == "vortex_block_size: must divide page_size=16, got 32"


def test_layers_skip(engine: Any, model: PreTrainedModel) -> None:
    answer, counted = run(engine, layers_skip=(1,))
    check(model, answer, layers_skip=(1,))
    assert counted.sparse_layers == 2
    assert (counted.blocks_read, counted.blocks_total) == (ROWS * 4 * 2 // 3, ROWS * 10 * 2 // 3)
    assert counted.summary_bytes == run(engine)[1].summary_bytes * 2 // 3
    assert refused(engine, layers_skip=(3,)) == "vortex_layers_skip: the model has layers 0 to 2, got 3"


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("bfloat16", 2), ("float16", 2), ("float32", 4), ("fp8_e4m3", 1), ("fp8_e5m2", 1)],
)
def test_dtype(engine: Any, model: PreTrainedModel, dtype: str, size: int) -> None:
    answer, counted = run(engine, dtype=dtype)
    assert (
        apart(answer.logprobs, forced(model, PROMPT, answer.tokens, BASE.model_copy(update={"dtype": dtype})))
        < TOLERANCE
    )
    assert counted.summary_bytes == LAYERS * HEADS * POOL * (2 * 16) * size  # the fields max and min


def test_workload_chunk_size(engine: Any) -> None:
    """8 of the 10 blocks are scored."""
    for size, chunks in ((32, 1), (8, 1), (4, 2), (2, 4), (1, 8)):
        assert run(engine, workload_chunk_size=size)[1].work_chunks == STEPS * HEADS * chunks


def test_schedule_policy(engine: Any, model: PreTrainedModel) -> None:
    half = "return cached_block_len / 2;"
    answer, counted = run(engine, schedule_policy=half)
    check(model, answer, schedule_policy=half)
    assert counted.blocks_read == ROWS * 5
    said = refused(engine, schedule_policy="int a = 1;\nreturn lengths;")
    assert said.startswith("vortex_schedule_policy: row 2, column ")
    assert "does not compile it: " in said
    assert "lengths" in said


def test_compilation_cache_dir(engine: Any, tmp_path: Path) -> None:
    answer, counted = run(engine, schedule_policy=LOOP, compilation_cache_dir=str(tmp_path / "cache"))
    assert counted.blocks_read == ROWS * 5
    (library,) = (tmp_path / "cache" / "policies").iterdir()
    before = library.stat()
    again, _ = run(engine, schedule_policy=LOOP, compilation_cache_dir=str(tmp_path / "cache"))
    assert apart(answer.logprobs, again.logprobs) < TOLERANCE
    assert library.stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "file").touch()
    said = refused(engine, schedule_policy=LOOP + " ", compilation_cache_dir=str(tmp_path / "file"))
    assert "compilation_cache_dir: cannot write" in said


def test_module_name(engine: Any, model: PreTrainedModel) -> None:
    other = "block_sparse_attention"
    answer, counted = run(engine, module_name=other)
    check(model, answer, module_name=other)
    assert (counted.flow, counted.graph) == (
        other,
        BASE.model_copy(update={"module_name": other}).load_graph().hash,
    )
    assert counted.graph != run(engine)[1].graph
    assert "did you mean 'block_sparse_attention'?" in refused(engine, module_name="block_sparse_atention")


def test_module_path(engine: Any, tmp_path: Path) -> None:
    """A flow file and its graph are one flow."""
    (tmp_path / "flow.py").write_text(GOOD)
    graph = trace_source(GOOD)
    (tmp_path / "graph.json").write_text(graph.to_json())
    answers = []
    for file, name in (("flow.py", "mean_centroid"), ("graph.json", "found")):
        answer, counted = run(engine, module_name=name, module_path=str(tmp_path / file))
        assert (counted.flow, counted.graph, counted.blocks_read) == (name, graph.hash, ROWS * 4)
        answers.append(answer)
    assert apart(answers[0].logprobs, answers[1].logprobs) < TOLERANCE
    found = {"module_name": "found", "module_path": str(tmp_path / "graph.json")}
    assert "column 17: a loop" in refused(engine, **found, schedule_policy=LOOP)  # never compiled
    assert "mean_centroid" in refused(engine, module_name="mean", module_path=str(tmp_path / "flow.py"))


def test_max_seq_lens(engine: Any) -> None:
    """Of the engine's start: the model would take 1024 tokens."""
    assert engine.server_args.context_length == BASE.max_seq_lens == 640
    with pytest.raises(ValueError, match="longer than the model's context length"):
        ask(engine, random_prompts(700), 1)
    said = refused(engine, max_seq_lens=2048)
    assert said == "vortex_max_seq_lens: the model's context is 1024 tokens, got 2048"
    assert "is below the engine's 640 tokens" in refused(engine, max_seq_lens=320)


def test_dense_crossover(engine: Any, model: PreTrainedModel) -> None:
    """Dense is faster on some GPUs for some steps; a CPU has no measured crossover."""
    answer, counted = run(engine, dense_crossover=False)
    check(model, answer)
    assert counted == run(engine, dense_crossover=True)[1]
    assert (counted.sparse_steps, counted.crossover_steps) == (STEPS, 0)


def test_attention_backend(engine: Any) -> None:
    said = refused(engine, attention_backend="trtllm")
    assert said == "vortex_attention_backend: 'trtllm' is not supported: the torch target does not run XQA"


def test_impl_backend(engine: Any) -> None:
    said = refused(engine, impl_backend="cuda")
    assert said == (
        "vortex_impl_backend: 'cuda' is not supported, kernels are generated in Triton: use 'triton'"
    )


def test_use_tensor_core(engine: Any) -> None:
    said = refused(engine, use_tensor_core=True)
    assert said == "vortex_use_tensor_core: True is not supported: the torch target generates no kernels"
