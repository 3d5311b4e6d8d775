"""A workload: prompts of one split, prefilled once and kept on disk, with dense attention's answers beside
them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from evaluators.measure.files import locked, write_synced
from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.prompts import (
    AskedPrompt,
    PromptSet,
    StoredPrompt,
    dense_accuracy,
    generate_prompts,
    load_tokenizer,
)
from evaluators.measure.spec import WorkloadSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluators.ruler import Prompt
    from vortex.engine.hf.store import PromptStore

META = "workload.json"
STORE = "store"


class WorkloadMeta(BaseModel):
    """The index of a workload, written as JSON."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    key: str
    prompts: tuple[StoredPrompt, ...]
    dense_seconds: float


class Workload(PromptSet[StoredPrompt]):
    """An opened workload; made by `Workload.ensure` and opened by every worker. The model is loaded on
    first use."""

    def __init__(
        self, path: Path, spec: WorkloadSpec, meta: WorkloadMeta, excluded: Sequence[ExcludedTask] = ()
    ) -> None:
        super().__init__(spec, meta.key, meta.prompts, excluded)
        self.path = path
        self.meta = meta

    @classmethod
    def ensure(cls, spec: WorkloadSpec, folder: Path, excluded: Sequence[ExcludedTask] = ()) -> Workload:
        """Opens the workload in `folder`, building it first if it is not there.

        Of several processes one builds and the others wait for it. A build that is killed leaves nothing that
        would be opened.
        """
        key = spec.key
        path = folder / key
        if not (path / META).exists():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f"{key}.lock"):
                if not (path / META).exists():
                    for partial in folder.glob(f".{key}.*"):  # of builders that were killed: the lock is ours
                        shutil.rmtree(partial, ignore_errors=True)
                    _build(spec, path)
        return cls(path, spec, WorkloadMeta.model_validate_json((path / META).read_text()), excluded)

    def dense_accuracy(self) -> dict[str, float]:
        """Dense attention's mean score of each task on these prompts."""
        return dense_accuracy(self.prompts)

    @property
    def model(self) -> PreTrainedModel:
        return load_model(self.spec.model)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.spec.model)

    @cached_property
    def store(self) -> PromptStore:
        from vortex.engine.hf.store import PromptStore

        return PromptStore.open(self.path / STORE)


@cache
def load_model(folder: Path) -> PreTrainedModel:
    """The model in float32 on the CPU; one in a process, whatever number of workloads it serves."""
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model


def _build(spec: WorkloadSpec, path: Path) -> None:
    write_workload(path, load_model(spec.model), load_tokenizer(spec.model), generate_prompts(spec))


def write_workload(
    path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
) -> None:
    """Prefills prompts, lets dense attention answer them, and puts all of it at `path`: complete or not at
    all."""
    from evaluators.measure.dense import answer_densely
    from vortex.engine.hf.store import PromptStore

    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        room = [prompt.max_new_tokens for prompt in prompts]
        store = PromptStore.build(folder / STORE, model, [prompt.ids for prompt in prompts], room)
        answers, seconds = answer_densely(model, tokenizer, store, prompts)
        stored = tuple(
            StoredPrompt(**AskedPrompt.of(prompt).model_dump(), dense=answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        meta = WorkloadMeta(key=path.name, prompts=stored, dense_seconds=seconds)
        write_synced(folder / META, meta.model_dump_json())
        folder.chmod(0o755)
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
