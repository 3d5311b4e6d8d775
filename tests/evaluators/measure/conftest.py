"""A search on a small random DeepSeek-V3 with experts, prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.measure.prepare import Prepared, prepare
from evaluators.measure.spec import WorkloadSpec
from tests.evaluators.self_answered import write_self_answered
from tests.vortex.engine.conftest import COMMON, EXPERTS, LATENT

TASKS = ("niah_single_1", "niah_multikey_2")


@pytest.fixture(scope="session")
def mla_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    from evaluators.probe.tokenizer import build

    folder = tmp_path_factory.mktemp("mla")
    tokenizer = build()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    tokens |= {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    shape = COMMON | LATENT | EXPERTS | tokens
    config = DeepseekV3Config(**shape, tie_word_embeddings=False, initializer_range=0.05)
    DeepseekV3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mla(mla_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The prompts ask for what dense attention says, so that every task counts."""
    cache = tmp_path_factory.mktemp("cache")
    search = WorkloadSpec(model=mla_folder, tasks=TASKS, length=500, samples=3)
    for spec in (search, search.heldout(samples=2)):
        write_self_answered(cache / spec.key, spec)
    return prepare(mla_folder, length=500, samples=3, heldout_samples=2, tasks=TASKS, cache=cache)
