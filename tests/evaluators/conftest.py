"""A small random model with the probe's tokenizer, and workloads on it.

Its answers mean nothing, so the references of the `answered` workload are taken from what dense attention
says: dense attention is right there, and a sparse algorithm is right as far as it says the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import (
    META,
    Workload,
    WorkloadMeta,
    load_model,
    load_tokenizer,
    write_workload,
)

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


def references(said: str, number: int) -> tuple[str, ...]:
    """The first word, which every algorithm says (it is the prefill's); or that and words that come later."""
    return (said[1:6],) if number % 2 else (said[1:6], said[8:16], said[40:48])


@pytest.fixture(scope="session")
def answered(workload: Workload, cache: Path) -> Workload:
    """The same prompts with references that dense attention finds."""
    from evaluators.ruler import generate

    spec, tokenizer = workload.spec, load_tokenizer(workload.spec.model)
    prompts = []
    for task in spec.tasks:
        prompts += generate(task, spec.length, tokenizer, spec.samples, spec.prompt_seed)
    said = [prompt.dense.prediction for prompt in workload.meta.prompts]
    prompts = [
        replace(prompt, answers=references(text, i), max_new_tokens=24)
        for i, (prompt, text) in enumerate(zip(prompts, said, strict=True))
    ]
    path = cache / "answered"
    write_workload(path, load_model(spec.model), tokenizer, prompts)
    return Workload(path, spec.heldout(), WorkloadMeta.model_validate_json((path / META).read_text()))
