"""Workloads of a random model, whose answers mean nothing: the references are taken from what dense attention
says. Dense attention is right there, and a sparse algorithm is right as far as it says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluators.measure.prompts import load_tokenizer
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import META, WorkloadMeta, load_model, write_workload

NEW_TOKENS = 24


def write_self_answered(path: Path, spec: WorkloadSpec) -> WorkloadMeta:
    """At `path`, the prompts of a workload with references that dense attention finds."""
    from evaluators.ruler import generate

    model, tokenizer = load_model(spec.model), load_tokenizer(spec.model)
    prompts = []
    for task in spec.tasks:
        prompts += generate(task, spec.length, tokenizer, spec.samples, spec.prompt_seed)
    prompts = [replace(prompt, max_new_tokens=NEW_TOKENS) for prompt in prompts]
    unanswered = path.with_name(f"{path.name}-unanswered")
    write_workload(unanswered, model, tokenizer, prompts)
    said = [prompt.dense.prediction for prompt in _meta(unanswered).prompts]
    prompts = [
        replace(prompt, answers=references(text, number))
        for number, (prompt, text) in enumerate(zip(prompts, said, strict=True))
    ]
    write_workload(path, model, tokenizer, prompts)
    return _meta(path)


def references(said: str, number: int) -> tuple[str, ...]:
    """The first word, which every algorithm says (it is the prefill's); or that and words that come later."""
    return (said[1:6],) if number % 2 else (said[1:6], said[8:16], said[40:48])


def _meta(path: Path) -> WorkloadMeta:
    return WorkloadMeta.model_validate_json((path / META).read_text())
