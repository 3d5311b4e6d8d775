"""Pages that a request did not write, or did not write in one go: their summaries are those of its tokens."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from evaluators.serving.requests import flush
from tests.sgl.engines import Engines
from tests.sgl.models import TOLERANCE, Answer, apart, ask, forced, random_prompts, settings
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.errors import ConfigError
from vortex.flow.algorithms import running_avg_block_sparse

QUEST = settings("gqa_quest_sparse_attention")
LAST_LAYER = settings("gqa_quest_sparse_attention", layers_skip=[0, 1], block_size=8)
"""No key depends on what this flow reads: what a step should give does not depend on how its prefix came to
be cached."""
CHUNK = 32
PAGES_OF_16 = {"page_size": 16, "chunked_prefill_size": CHUNK}
PAGES_OF_8 = {**PAGES_OF_16, "page_size": 8, "max_total_tokens": 512, "schedule_conservativeness": 0.1}
"""A pool of two or three requests, and a scheduler that lets in more."""


def started(engines: Engines, config: VortexConfig, options: dict[str, Any] = PAGES_OF_16) -> Any:
    """An engine with an empty prefix cache that prefills long prompts in chunks."""
    engine = engines.sparse(config, **options)
    flush(engine)
    return engine


def twice(engines: Engines, model: PreTrainedModel, config: VortexConfig, options: dict[str, Any]) -> None:
    """One prompt, prefilled in chunks, then taken from the cache."""
    engine = started(engines, config, options)
    (prompt,) = random_prompts(183, seed=config.block_size)  # not what the pages hold from before
    (cold,) = ask(engine, [prompt])
    (warm,) = ask(engine, [prompt])
    page_size = options["page_size"]
    assert engine.get_server_info()["chunked_prefill_size"] == CHUNK
    assert (cold.cached, warm.cached) == (0, 183 // page_size * page_size)
    assert cold.tokens == warm.tokens
    assert agrees(model, prompt, cold, config)
    assert agrees(model, prompt, warm, config)
    assert control.counters(engine).sparse_steps >= 30


def agrees(model: PreTrainedModel, prompt: list[int], answer: Answer, config: VortexConfig) -> bool:
    return apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE


@pytest.mark.parametrize("block_size", [16, 8])
def test_a_prompt_in_chunks_and_again_from_the_cache(
    engines: Engines, model: PreTrainedModel, block_size: int
) -> None:
    twice(engines, model, settings("gqa_quest_sparse_attention", block_size=block_size), PAGES_OF_16)


def test_prompts_that_share_a_prefix(engines: Engines, model: PreTrainedModel) -> None:
    prefix, *rest = random_prompts(100, 60, 90, 3)
    prompts = [prefix + tail for tail in rest]
    engine = started(engines, QUEST)
    cold = []
    for prompt in prompts:
        flush(engine)
        cold += ask(engine, [prompt])
    flush(engine)
    ask(engine, [prefix], 1)
    warm = ask(engine, prompts)
    assert [answer.cached for answer in cold] == [0, 0, 0]
    assert all(answer.cached >= 96 for answer in warm)
    assert [answer.tokens for answer in cold] == [answer.tokens for answer in warm]
    for prompt, answer in zip(prompts, warm, strict=True):
        assert agrees(model, prompt, answer, QUEST)


def test_a_second_turn_reads_pages_that_decode_wrote(engines: Engines, model: PreTrainedModel) -> None:
    engine = started(engines, LAST_LAYER)
    first, more = random_prompts(70, 30)
    (answer,) = ask(engine, [first], 90)
    second = first + answer.tokens + more
    (again,) = ask(engine, [second])
    assert again.cached >= 144
    assert agrees(model, second, again, LAST_LAYER)
    assert not agrees(model, second, again, QUEST)


def test_cached_pages_are_summarised_for_the_next_flow(engines: Engines, model: PreTrainedModel) -> None:
    (prompt,) = random_prompts(200)
    ask(started(engines, QUEST), [prompt])
    for config in (settings("block_sparse_attention"), settings("venergy_gated_centroid", block_size=8)):
        engine = engines.sparse(config, **PAGES_OF_16)
        (answer,) = ask(engine, [prompt])
        assert answer.cached == 192
        assert agrees(model, prompt, answer, config)
        assert not agrees(model, prompt, answer, QUEST)


def test_released_memory_is_not_summarised(engines: Engines, model: PreTrainedModel) -> None:
    engine = started(engines, QUEST)
    engine.release_memory_occupation(["kv_cache"])
    with pytest.raises(ConfigError, match="call resume_memory_occupation first"):
        control.deploy(engine, settings("block_sparse_attention"))
    engine.resume_memory_occupation(["kv_cache"])
    (prompt,) = random_prompts(200)
    (answer,) = ask(engine, [prompt])
    assert agrees(model, prompt, answer, QUEST)


def test_a_flow_that_saves_fields_shares_no_prefix(engines: Engines, model: PreTrainedModel) -> None:
    saves = settings("running_avg_block_sparse")
    (prompt,) = random_prompts(200)
    ask(started(engines, QUEST), [prompt])
    engine = engines.sparse(saves, **PAGES_OF_16)
    answers = ask(engine, [prompt, prompt]) + ask(engine, [prompt])
    assert [answer.cached for answer in answers] == [0, 0, 0]
    assert all(agrees(model, prompt, answer, saves) for answer in answers)
    for _ in range(2):  # an id that the user chose twice
        answered = engine.generate(input_ids=prompt, rid="chosen", sampling_params={"max_new_tokens": 4})
        assert answered["meta_info"]["cached_tokens"] == 0
    engine = engines.sparse(QUEST, **PAGES_OF_16)
    (answer,) = ask(engine, [prompt])
    assert answer.cached == 192
    assert agrees(model, prompt, answer, QUEST)


def test_requests_that_come_and_go(engines: Engines, model: PreTrainedModel) -> None:
    """More requests than may run at once, of all lengths: prefills between decode steps, ends at any step,
    request numbers and pages that are taken over."""
    engine = started(engines, QUEST)
    prompts = random_prompts(183, 12, 90, 64, 150, 7, 33, 120, 48, 201, 15, 77)
    limits = [5, 40, 17, 31, 9, 60, 24, 12, 33, 20, 50, 28]
    for prompt, answer in zip(prompts, ask(engine, prompts, limits), strict=True):
        assert agrees(model, prompt, answer, QUEST)
    assert control.counters(engine).decode_steps > max(limits)


def test_pages_of_8(engines: Engines, model: PreTrainedModel) -> None:
    twice(engines, model, settings("gqa_quest_sparse_attention", block_size=8), PAGES_OF_8)


def test_blocks_of_finished_requests_start_again(
    engines: Engines, model: PreTrainedModel, tmp_path: Path
) -> None:
    """More requests than the pool has pages for: later ones take those of earlier ones, whose saved scores
    are gone. The shipped flow fills them with zeros itself; this one leaves that to the engine."""
    source = inspect.getsource(running_avg_block_sparse)
    source = source.replace("running_avg_block_sparse", "not_filled")
    (tmp_path / "flow.py").write_text(
        source.replace('        self.start(cache["running_score"], loc=loc, ctx=ctx)\n', "")
    )
    saves = settings("not_filled", module_path=str(tmp_path / "flow.py"), block_size=8)
    started(engines, LAST_LAYER, PAGES_OF_8)  # no engine with a prefix cache starts with `saves`
    engine = engines.sparse(saves, **PAGES_OF_8)
    for prompt in random_prompts(180, 150, 190, 200, 170):
        (answer,) = ask(engine, [prompt], 40)
        assert agrees(model, prompt, answer, saves)


def test_retracted_requests(engines: Engines, model: PreTrainedModel) -> None:
    """A pool too small for all of a batch: some give their pages back and prefill once more what they had.
    The token of that prefill is dense, and the only one."""
    engine = started(engines, LAST_LAYER, PAGES_OF_8)
    prompts = random_prompts(90, 60, 80, 70)
    answers = ask(engine, prompts, 100)
    assert sum(answer.retractions for answer in answers) > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        sparse = forced(model, prompt, answer.tokens, LAST_LAYER)
        other = (answer.logprobs - sparse).abs().amax(1) > TOLERANCE
        assert int(other.sum()) == answer.retractions
        if answer.retractions:
            dense = forced(model, prompt, answer.tokens)
            assert apart(answer.logprobs[other], dense[other]) < TOLERANCE
