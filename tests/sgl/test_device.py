"""Decode steps planned on the device and run by generated kernels, as on a GPU, here under Triton's
interpreter: SGLang = the `hf` engine, step by step. A CPU has no CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transformers import PreTrainedModel

from evaluators.serving.requests import flush
from tests.sgl.engines import Engines
from tests.sgl.models import LAYERS, TOLERANCE, Answer, apart, ask, check, forced, random_prompts, settings
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.target import KERNELS, VARIABLE
from vortex.flow import build_vflow, list_keys

QUEST = settings("gqa_quest_sparse_attention")
FLOWS = [name for name in list_keys() if build_vflow(name).kind == "gqa"]
SAMPLE = ("gqa_quest_sparse_attention", "gqa_block_sparse_attention", "running_avg_block_sparse")
PLAIN = {"disable_radix_cache": True, "disable_overlap_schedule": True, "max_total_tokens": 640}
CHUNKS = {"page_size": 16, "chunked_prefill_size": 32, "max_total_tokens": 320}
SMALL = {**CHUNKS, "page_size": 8, "max_total_tokens": 512, "schedule_conservativeness": 0.1}
LONG, NEW = 150, 12
"""Steps: past the end of a block."""


@pytest.fixture(autouse=True, scope="module")
def _kernels() -> Iterator[None]:
    """Before the engines start; they inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KERNELS)
        yield


def agrees(model: PreTrainedModel, prompt: list[int], answer: Answer, config: VortexConfig) -> bool:
    return apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.full) for name in FLOWS]
)
def test_flows(engines: Engines, model: PreTrainedModel, name: str) -> None:
    """Each swapped for the one before; a request that is sparse, one that becomes so, one that never is."""
    config = settings(name)
    engine = engines.sparse(config, **PLAIN)
    prompts = random_prompts(LONG, 44, 5)
    answers = ask(engine, prompts, NEW)
    check(model, prompts[0], answers[0], config)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert agrees(model, prompt, answer, config)
    counted, heads = control.counters(engine), model.config.num_key_value_heads
    lengths = [n for prompt in prompts for n in range(len(prompt) + 1, len(prompt) + NEW)]
    blocks = [-(-n // 16) for n in lengths]
    assert (counted.flow, counted.target) == (name, KERNELS)
    assert counted.decode_steps == counted.sparse_steps == NEW - 1
    assert counted.rows_sparse == heads * sum(n > 3 for n in blocks)
    assert counted.rows_sparse + counted.rows_dense == heads * len(blocks)
    assert counted.blocks_read == LAYERS * heads * sum(min(n, 3) for n in blocks)
    assert counted.blocks_total == LAYERS * heads * sum(blocks)
    finished = [(len(prompt) + NEW - 1) // 16 for prompt in prompts]
    assert counted.blocks_summarised == LAYERS * heads * sum(finished)


@pytest.mark.full
def test_layers_skip_and_no_flow(engines: Engines, model: PreTrainedModel) -> None:
    config = settings("gqa_quest_sparse_attention", layers_skip=[0, 2], block_size=8)
    (prompt,) = random_prompts(LONG)
    engine = engines.sparse(config, **PLAIN)
    (answer,) = ask(engine, [prompt], NEW)
    check(model, prompt, answer, config)
    control.deploy(engine, None)
    (answer,) = ask(engine, [prompt], NEW)
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens)) < TOLERANCE
    control.deploy(engine, QUEST)
    (answer,) = ask(engine, [prompt], NEW)
    assert agrees(model, prompt, answer, QUEST)


def test_tensor_cores_and_a_policy(engines: Engines, model: PreTrainedModel) -> None:
    policy = "return topk_val + block_reserved_bos + block_reserved_eos + cached_block_len / 8;"
    config = settings("block_sparse_attention", schedule_policy=policy, use_tensor_core=True)
    (prompt,) = random_prompts(LONG)
    (answer,) = ask(engines.sparse(config, **PLAIN), [prompt], NEW)
    check(model, prompt, answer, config.model_copy(update={"use_tensor_core": False}))


def test_chunks_and_the_prefix_cache(engines: Engines, model: PreTrainedModel) -> None:
    """With the overlap schedule."""
    engine = engines.sparse(QUEST, **CHUNKS)
    (prompt,) = random_prompts(167)
    for cached in (0, 160):
        (answer,) = ask(engine, [prompt], NEW)
        assert answer.cached == cached
        assert agrees(model, prompt, answer, QUEST)
    other = settings("block_sparse_attention", block_size=8)
    (answer,) = ask(engines.sparse(other, **CHUNKS), [prompt], NEW)
    assert answer.cached == 160
    assert agrees(model, prompt, answer, other)


@pytest.mark.full
def test_requests_that_come_and_go(engines: Engines, model: PreTrainedModel) -> None:
    """More than may run at once, and a pool that is too small for those that do: some are retracted, and the
    token of their second prefill is dense."""
    config = settings("gqa_quest_sparse_attention", layers_skip=[0, 1], block_size=8)
    engine = engines.sparse(config, **SMALL)
    flush(engine)
    prompts = random_prompts(90, 60, 80, 70, 7)
    answers = ask(engine, prompts, 60)
    assert sum(answer.retractions for answer in answers) > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        sparse = forced(model, prompt, answer.tokens, config)
        other = (answer.logprobs - sparse).abs().amax(1) > TOLERANCE
        assert int(other.sum()) == answer.retractions
