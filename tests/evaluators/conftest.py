"""A small random model with the probe's tokenizer, and workloads on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload
from tests.evaluators.self_answered import write_self_answered

TASKS = ("niah_single_1", "niah_multikey_2", "fwe")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from evaluators.probe.tokenizer import build

    folder = tmp_path_factory.mktemp("model")
    tokenizer = build()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def spec(model_folder: Path) -> WorkloadSpec:
    return WorkloadSpec(model=model_folder, tasks=TASKS, length=600, samples=4, gate=1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def workload(spec: WorkloadSpec, cache: Path) -> Workload:
    return Workload.ensure(spec, cache)


@pytest.fixture(scope="session")
def answered(spec: WorkloadSpec, cache: Path) -> Workload:
    """The same prompts with references that dense attention finds."""
    path = cache / "answered"
    return Workload(path, spec.heldout(), write_self_answered(path, spec))
