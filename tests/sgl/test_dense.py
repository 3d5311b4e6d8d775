"""Without a VortexConfig SGLang is untouched, though the plugin is installed."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import TOLERANCE, apart, ask, forced, random_prompts
from vortex.engine.sgl import control
from vortex.errors import ConfigError


def test_a_dense_engine_answers_as_transformers_does(engines: Engines, model: PreTrainedModel) -> None:
    prompts = random_prompts(150, 1, 16, 40)
    for prompt, answer in zip(prompts, ask(engines.dense(), prompts), strict=True):
        expected = forced(model, prompt, answer.tokens)
        assert apart(answer.logprobs, expected) < TOLERANCE
        assert expected.argmax(-1).tolist() == answer.tokens


def test_nothing_of_vortex_is_in_a_dense_engine(engines: Engines) -> None:
    engine = engines.dense()
    state = engine.get_server_info()
    assert "vortex" not in state
    assert "vortex" not in state["internal_states"][0]
    assert state["json_model_override_args"] == "{}"
    with pytest.raises(ConfigError, match="the engine is dense"):
        control.counters(engine)


def test_a_dense_engine_takes_no_flow(engines: Engines) -> None:
    with pytest.raises(ConfigError, match="the engine is dense"):
        control.deploy(engines.dense(), None)
