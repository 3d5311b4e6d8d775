"""Flows over latents: sparse decode of MLA in SGLang = the `hf` engine in float32, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from evaluators.serving.requests import flush
from tests.sgl.engines import Engines
from tests.sgl.models import (
    LAYERS,
    TOLERANCE,
    apart,
    ask,
    check,
    forced,
    random_deepseek,
    random_prompts,
    settings,
)
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.target import KERNELS, VARIABLE
from vortex.flow import build_vflow, list_keys

FLOWS = [name for name in list_keys() if build_vflow(name).kind == "mla"]
SAMPLE = ("quest_mla", "rope_aware_block_sparse_mla")


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return random_deepseek()


@pytest.fixture(scope="module")
def model_path(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deepseek")
    model.save_pretrained(path)
    return path


def started(engines: Engines, config: VortexConfig) -> Any:
    """SGLang's name for MLA on one kind of GPU means our decode on any machine; Triton prefills then."""
    engine = engines.sparse(config, attention_backend="trtllm_mla", disable_overlap_schedule=True)
    flush(engine)
    return engine


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.full) for name in FLOWS]
)
def test_every_shipped_flow(engines: Engines, model: PreTrainedModel, name: str) -> None:
    config = settings(name)
    engine = started(engines, config)
    (prompt,) = random_prompts(120)
    (answer,) = ask(engine, [prompt])
    check(model, prompt, answer, config)
    counted = control.counters(engine)
    assert (counted.flow, counted.dense_backend) == (name, "TritonAttnBackend")
    assert counted.sparse_steps == counted.rows_sparse == 15
    assert counted.blocks_read == 3 * 15 * LAYERS


def test_kernels(engines: Engines, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, here under Triton's interpreter."""
    monkeypatch.setenv(VARIABLE, KERNELS)
    config = settings("quest_mla", layers_skip=[1])
    engine = started(engines, config)
    prompts = random_prompts(120, 30)
    answers = ask(engine, prompts, 8)
    check(model, prompts[0], answers[0], config)
    assert apart(answers[1].logprobs, forced(model, prompts[1], answers[1].tokens, config)) < TOLERANCE
    counted = control.counters(engine)
    assert (counted.target, counted.rows_sparse, counted.rows_dense) == (KERNELS, 7, 7)


@pytest.mark.full
def test_ragged_batches_and_the_prefix_cache(engines: Engines, model: PreTrainedModel) -> None:
    config = settings("quest_mla", layers_skip=[1])
    engine = started(engines, config)
    prompts = random_prompts(120, 30, 70)
    for cached in ([0, 0, 0], [112, 16, 64]):
        answers = ask(engine, prompts, 24)
        assert [answer.cached for answer in answers] == cached
        for prompt, answer in zip(prompts, answers, strict=True):
            assert apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE
