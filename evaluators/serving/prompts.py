"""Prompts for a serving engine, and what its dense attention answers to them: two files in the cache.

The driver makes the prompts, with a tokenizer alone. The first worker that opens them has its engine answer
them densely; the file of the answers is named after the engine that gave them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.measure.files import locked, put_file
from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.prompts import (
    AskedPrompt,
    DenseAnswer,
    PromptSet,
    StoredPrompt,
    generate_prompts,
)
from evaluators.measure.spec import WorkloadSpec

Ids = tuple[tuple[int, ...], ...]


class PromptsFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    prompts: tuple[AskedPrompt, ...]
    ids: Ids


class AnswersFile(BaseModel):
    """`engine`: `ServingOptions.identity`."""

    model_config = ConfigDict(frozen=True)

    engine: str
    seconds: float
    answers: tuple[DenseAnswer, ...]


class ServedPrompts(PromptSet[AskedPrompt]):
    """Prompts and their token ids; all that a driver needs."""

    def __init__(
        self, spec: WorkloadSpec, key: str, file: PromptsFile, excluded: Sequence[ExcludedTask] = ()
    ) -> None:
        super().__init__(spec, key, file.prompts, excluded)
        self.ids = file.ids

    @classmethod
    def ensure(
        cls, spec: WorkloadSpec, engine: str, cache: Path, excluded: Sequence[ExcludedTask] = ()
    ) -> ServedPrompts:
        """Opens the prompts in `cache`, making them if they are not there. Their identity is also that of
        the `engine` whose answers they are compared by."""
        path = cache / f"{spec.key}.prompts.json"
        if not path.exists():
            with locked(cache / f"{spec.key}.lock"):
                if not path.exists():
                    put_file(path, _made(spec).model_dump_json())
        file = PromptsFile.model_validate_json(path.read_text())
        return cls(spec, served_key(spec, engine), file, excluded)


class ServedWorkload(PromptSet[StoredPrompt]):
    """Prompts with the engine's own dense answers."""

    def __init__(self, prompts: ServedPrompts, file: AnswersFile) -> None:
        stored = [
            StoredPrompt(**prompt.model_dump(), dense=answer)
            for prompt, answer in zip(prompts.prompts, file.answers, strict=True)
        ]
        super().__init__(prompts.spec, prompts.key, stored, prompts.excluded)
        self.ids = prompts.ids
        self.dense_seconds = file.seconds

    @classmethod
    def ensure(
        cls, prompts: ServedPrompts, cache: Path, answer: Callable[[ServedPrompts], AnswersFile]
    ) -> ServedWorkload:
        """Opens the answers in `cache`, or has the prompts answered. Of several workers one does, and the
        others wait for it."""
        path = cache / f"{prompts.key}.dense.json"
        if not path.exists():
            with locked(cache / f"{prompts.key}.lock"):
                if not path.exists():
                    put_file(path, answer(prompts).model_dump_json())
        return cls(prompts, AnswersFile.model_validate_json(path.read_text()))


def served_key(spec: WorkloadSpec, engine: str) -> str:
    """Identity of prompts that are compared by the answers of one engine."""
    return f"{spec.key}-{hashlib.sha256(engine.encode()).hexdigest()[:8]}"


def _made(spec: WorkloadSpec) -> PromptsFile:
    prompts = generate_prompts(spec)
    return PromptsFile(
        prompts=tuple(AskedPrompt.of(prompt) for prompt in prompts),
        ids=tuple(prompt.ids for prompt in prompts),
    )
