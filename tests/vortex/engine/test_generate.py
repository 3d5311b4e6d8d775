"""`Engine` in a few lines, and `generate()` of transformers through the registered attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.vortex.engine.conftest import NEW, Flows, flows_for, is_mla, padded_greedy
from vortex.config import VortexConfig
from vortex.engine.hf import Engine, VortexCache
from vortex.engine.hf.attention import attention_implementation
from vortex.errors import ConfigError
from vortex.runtime.hooks import Hooks, ScoreInput

SPARSE = VortexConfig(topk_val=2, block_size=8)
EVERYTHING = VortexConfig(topk_val=1000)


def test_engine_on_token_ids(
    model: PreTrainedModel, prompts: list[list[int]], dense: list[list[int]]
) -> None:
    name = "quest_mla" if is_mla(model) else "gqa_quest_sparse_attention"
    assert Engine(model, None).generate(prompts, NEW) == dense
    assert Engine(model, name, EVERYTHING).generate(prompts, NEW) == dense
    sparse = Engine(model, name, SPARSE).generate(prompts, NEW)
    assert sparse != dense
    assert [len(row) for row in Engine(model, None).generate(prompts, [1, 2, 3, 4, 5, 6])] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]


def test_engine_on_text_from_a_folder(
    model: PreTrainedModel, flows: Flows, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["w5 w6 w7", "w9"]
    engine = Engine(tmp_path, flows.quest, VortexConfig(topk_val=4))
    ids = engine.generate([[5, 6, 7], [9]], 5)
    assert engine.generate(texts, 5) == [tokenizer.decode(row, skip_special_tokens=True) for row in ids]


def test_generate_of_transformers_with_left_padding(
    model: PreTrainedModel, flows: Flows, prompts: list[list[int]], dense: list[list[int]]
) -> None:
    assert padded_greedy(model, prompts, VortexCache(model, flows.centroid, EVERYTHING)) == dense
    sparse = padded_greedy(model, prompts, VortexCache(model, flows.centroid, SPARSE))
    assert sparse == Engine(model, flows.centroid, SPARSE).generate(prompts, NEW)
    assert sparse != dense
    assert model.config._attn_implementation != "vortex"


def test_rows_grow_by_scattered_pages(model: PreTrainedModel, flows: Flows, prompts: list[list[int]]) -> None:
    """More new tokens than the first pages hold: rows get pages that are not consecutive, and the tokens
    stay.
    """
    config = VortexConfig(topk_val=4, block_size=16)
    scattered: list[bool] = []

    def watch(given: ScoreInput, blocks: torch.Tensor) -> None:
        scattered.append(bool((given.table.starts < 0).any()))

    new = 150
    cache = VortexCache(model, flows.centroid, config, hooks=Hooks(selected=watch))
    grown = padded_greedy(model, prompts[2:5], cache, new)
    assert grown == Engine(model, flows.centroid, config).generate(prompts[2:5], new)
    assert True in scattered


def test_misuse_is_refused(model: PreTrainedModel, flows: Flows, prompts: list[list[int]]) -> None:
    ids = torch.tensor([prompts[0]])
    with attention_implementation(model, "vortex"):
        with pytest.raises(ConfigError, match="past_key_values"):
            model(input_ids=ids)
        cache = VortexCache(model, flows.centroid, SPARSE)
        with pytest.raises(ConfigError, match="beam search"):
            model.generate(ids, max_new_tokens=4, num_beams=2, do_sample=False, past_key_values=cache)
        cache = VortexCache(model, flows.centroid, SPARSE)
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        with pytest.raises(ConfigError, match="one token a step"):
            model(input_ids=ids, past_key_values=cache, use_cache=True)
        padded = torch.tensor([prompts[5] + [0, 0], prompts[0][: len(prompts[5]) + 2]])
        mask = torch.ones_like(padded)
        mask[0, -2:] = 0
        with pytest.raises(ConfigError, match="padding_side"):
            model(
                input_ids=padded,
                attention_mask=mask,
                past_key_values=VortexCache(model, None),
                use_cache=True,
            )
    other = flows_for(not is_mla(model)).quest
    for refuse in (lambda: Engine(model, other), lambda: VortexCache(model, other)):
        with pytest.raises(ConfigError, match=r"the flow is a vFlow.*, but the model needs a vFlow"):
            refuse()
    engine = Engine(model, None)
    for bad in ([[]], ["text"]):
        with pytest.raises(ConfigError):
            engine.generate(bad)  # type: ignore[call-overload]
    assert engine.generate([]) == []
