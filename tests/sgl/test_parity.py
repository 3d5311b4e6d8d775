"""Sparse decode in SGLang = the `hf` engine in float32, step by step, for every flow that ships."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import LAYERS, TOLERANCE, Answer, apart, ask, check, forced, random_prompts, settings
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.counters import EngineCounters
from vortex.errors import ConfigError
from vortex.flow import build_vflow, list_keys

FLOWS = [name for name in list_keys() if build_vflow(name).kind == "gqa"]
OPTIONS = {"page_size": 32, "disable_radix_cache": True, "disable_overlap_schedule": True}
"""Without overlap a request takes no step too many, so that counters are exact."""
LONG, SHORT = 200, 40
"""Tokens of a prompt whose rows are sparse at this budget, and of one whose rows are not."""
NEW = 28
"""Steps: past the end of a block and of a page."""


def serve(
    engines: Engines, config: VortexConfig, prompts: list[list[int]], new: int = NEW
) -> tuple[list[Answer], EngineCounters]:
    """Answers of an engine that shares no prefixes, and what its scheduler counted meanwhile."""
    engine = engines.sparse(config, **OPTIONS)
    return ask(engine, prompts, new), control.counters(engine)


@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize("name", FLOWS)
def test_every_shipped_flow(engines: Engines, model: PreTrainedModel, name: str, block_size: int) -> None:
    config = settings(name, block_size=block_size)
    (prompt,) = random_prompts(LONG)
    (answer,), counted = serve(engines, config, [prompt])
    check(model, prompt, answer, config)
    steps, heads = NEW - 1, model.config.num_key_value_heads
    assert counted.flow == name
    assert counted.decode_steps == counted.sparse_steps == steps
    assert counted.rows_sparse == steps * heads
    assert counted.blocks_read == 3 * steps * heads * LAYERS
    lengths = range(LONG + 1, LONG + NEW)
    assert counted.blocks_total == sum(-(-n // block_size) for n in lengths) * heads * LAYERS


def test_another_flow_answers_otherwise(engines: Engines, model: PreTrainedModel) -> None:
    """The comparison sees which flow has chosen."""
    (prompt,) = random_prompts(LONG)
    quest, centroid = settings("gqa_quest_sparse_attention"), settings("block_sparse_attention")
    (answer,), _ = serve(engines, quest, [prompt])
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens, centroid)) > 100 * TOLERANCE


def test_a_budget_for_everything_is_dense(engines: Engines, model: PreTrainedModel) -> None:
    prompts = random_prompts(LONG, SHORT)
    answers, counted = serve(engines, settings("gqa_quest_sparse_attention", topk_val=64), prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert apart(answer.logprobs, forced(model, prompt, answer.tokens)) < TOLERANCE
    assert counted.decode_steps == NEW - 1
    assert counted.sparse_steps == counted.rows_sparse == counted.blocks_read == 0


def test_no_flow_is_dense(engines: Engines, model: PreTrainedModel) -> None:
    """A flow swapped for none."""
    (prompt,) = random_prompts(LONG)
    engine = engines.sparse(settings("block_sparse_attention"), **OPTIONS)
    control.deploy(engine, None)
    (answer,) = ask(engine, [prompt])
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens)) < TOLERANCE
    assert control.counters(engine).flow == ""


def test_no_flow_is_swapped_under_a_request(
    engines: Engines, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings("gqa_quest_sparse_attention")
    engine = engines.sparse(config, **OPTIONS)
    (prompt,) = random_prompts(LONG)
    limits = {"temperature": 0, "max_new_tokens": 150, "ignore_eos": True}
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.1)

    async def disturbed() -> list[int]:
        stream = await engine.async_generate(input_ids=prompt, sampling_params=limits, stream=True)
        await anext(stream)
        with pytest.raises(ConfigError, match="while requests are running"):
            control.deploy(engine, settings("block_sparse_attention"))
        return [output["output_ids"] async for output in stream][-1]

    tokens = engine.loop.run_until_complete(disturbed())
    assert tokens == forced(model, prompt, tokens, config).argmax(-1).tolist()
    assert control.counters(engine).sparse_steps == 149


@pytest.mark.parametrize("name", ["gqa_quest_sparse_attention", "running_avg_block_sparse"])
def test_short_requests_beside_long_ones(engines: Engines, model: PreTrainedModel, name: str) -> None:
    """Rows that stay dense, rows that become sparse on the way, and rows that are sparse from the start."""
    config = settings(name)
    prompts = random_prompts(LONG, 5, SHORT, 333, 1)
    answers, counted = serve(engines, config, prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE
    heads = model.config.num_key_value_heads
    lengths = [n for prompt in prompts for n in range(len(prompt) + 1, len(prompt) + NEW)]
    sparse = sum(n > 3 * 16 for n in lengths)
    assert (counted.rows_sparse, counted.rows_dense) == (sparse * heads, (len(lengths) - sparse) * heads)
    assert counted.sparse_steps == NEW - 1


def test_a_request_that_becomes_sparse(engines: Engines, model: PreTrainedModel) -> None:
    """Blocks that dense steps have finished are chosen from later."""
    config = settings("gqa_quest_sparse_attention")
    (prompt,) = random_prompts(5, seed=1)
    (answer,), counted = serve(engines, config, [prompt], 110)
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE
    assert counted.decode_steps - counted.sparse_steps == 48 - len(prompt)


def test_layers_skip(engines: Engines, model: PreTrainedModel) -> None:
    config = settings("gqa_quest_sparse_attention", layers_skip=[0, 2])
    (prompt,) = random_prompts(LONG)
    (answer,), counted = serve(engines, config, [prompt])
    check(model, prompt, answer, config)
    every = config.model_copy(update={"layers_skip": None})
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens, every)) > 100 * TOLERANCE
    assert counted.sparse_layers == 1
    assert counted.blocks_read == 3 * (NEW - 1) * model.config.num_key_value_heads


def test_a_policy_and_more_reserved_blocks(engines: Engines, model: PreTrainedModel) -> None:
    config = settings(
        "gqa_block_sparse_attention",
        schedule_policy="return topk_val + block_reserved_bos + block_reserved_eos + cached_block_len / 8;",
        block_reserved_bos=2,
        block_reserved_eos=3,
    )
    (prompt,) = random_prompts(LONG)
    (answer,), _ = serve(engines, config, [prompt])
    check(model, prompt, answer, config)


@pytest.mark.full
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8_kv_cache(engines: Engines, model: PreTrainedModel, stored: torch.dtype) -> None:
    """Attention and summaries read the rounded keys. A key at the edge of two fp8 numbers may fall to either
    side, which is more than the tolerance, and far less than what another block changes."""
    config = settings("gqa_quest_sparse_attention")
    name = {torch.float8_e4m3fn: "fp8_e4m3", torch.float8_e5m2: "fp8_e5m2"}[stored]
    (prompt,) = random_prompts(LONG)
    (answer,) = ask(engines.sparse(config, kv_cache_dtype=name, **OPTIONS), [prompt], NEW)
    expected = forced(model, prompt, answer.tokens, config, stored)
    larger = config.model_copy(update={"topk_val": 2})
    steps = (forced(model, prompt, answer.tokens, larger, stored) - expected).abs().amax(1)
    assert apart(answer.logprobs, expected) < 0.1 < steps[1:].min()
    assert apart(forced(model, prompt, answer.tokens, config), expected) > 0.1
