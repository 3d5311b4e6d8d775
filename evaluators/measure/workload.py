"""A workload: prompts of one split, prefilled once and kept on disk, with dense attention's answers beside
them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.spec import WorkloadSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluators.ruler import Prompt
    from vortex.engine.hf.store import PromptStore

META = "workload.json"
STORE = "store"


class DenseAnswer(BaseModel):
    """What dense attention answers, and in how many tokens (the prefill's first one included)."""

    model_config = ConfigDict(frozen=True)

    prediction: str
    score: float
    tokens: int


class StoredPrompt(BaseModel):
    """A prompt without its text; its tokens are in the store at the same position."""

    model_config = ConfigDict(frozen=True)

    task: str
    index: int
    tokens: int
    answers: tuple[str, ...]
    metric: Literal["all", "part"]
    max_new_tokens: int
    source: str
    dense: DenseAnswer


class WorkloadMeta(BaseModel):
    """The index of a workload, written as JSON."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    key: str
    prompts: tuple[StoredPrompt, ...]
    dense_seconds: float


class Workload:
    """An opened workload; made by `Workload.ensure` and opened by every worker. The model is loaded on
    first use."""

    def __init__(
        self, path: Path, spec: WorkloadSpec, meta: WorkloadMeta, excluded: Sequence[ExcludedTask] = ()
    ) -> None:
        self.path = path
        self.spec = spec
        self.meta = meta
        self.excluded = tuple(excluded)

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
            with _lock(folder / f"{key}.lock"):
                if not (path / META).exists():
                    for partial in folder.glob(f".{key}.*"):  # of builders that were killed: the lock is ours
                        shutil.rmtree(partial, ignore_errors=True)
                    _build(spec, path)
        return cls(path, spec, WorkloadMeta.model_validate_json((path / META).read_text()), excluded)

    def __len__(self) -> int:
        return len(self.meta.prompts)

    @property
    def key(self) -> str:
        return self.meta.key

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the prompts that are measured: those of the tasks that count."""
        left_out = {task.task for task in self.excluded}
        return tuple(i for i, prompt in enumerate(self.meta.prompts) if prompt.task not in left_out)

    @property
    def gate(self) -> tuple[int, ...]:
        """Positions of the gate's prompts: the first ones of each task that counts."""
        return tuple(i for i in self.positions if self.meta.prompts[i].index < self.spec.gate)

    @property
    def rest(self) -> tuple[int, ...]:
        """Positions of the other prompts that are measured."""
        return tuple(i for i in self.positions if self.meta.prompts[i].index >= self.spec.gate)

    @property
    def tokens(self) -> int:
        """Tokens of the longest prompt."""
        return max(prompt.tokens for prompt in self.meta.prompts)

    @property
    def sources(self) -> dict[str, str]:
        """The data that each task ran on."""
        return {prompt.task: prompt.source for prompt in self.meta.prompts}

    def dense_accuracy(self) -> dict[str, float]:
        """Dense attention's mean score of each task on these prompts."""
        scores: dict[str, list[float]] = {}
        for prompt in self.meta.prompts:
            scores.setdefault(prompt.task, []).append(prompt.dense.score)
        return {task: sum(values) / len(values) for task, values in scores.items()}

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


@cache
def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel lets go of it when that process ends, however it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _build(spec: WorkloadSpec, path: Path) -> None:
    from evaluators.ruler import Sources, generate

    tokenizer = load_tokenizer(spec.model)
    sources = Sources(spec.essay, spec.squad, spec.hotpotqa)
    prompts: list[Prompt] = []
    for task in spec.tasks:
        prompts += generate(task, spec.length, tokenizer, spec.samples, spec.prompt_seed, sources)
    write_workload(path, load_model(spec.model), tokenizer, prompts)


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
            StoredPrompt(
                task=prompt.task,
                index=prompt.index,
                tokens=len(prompt.ids),
                answers=prompt.answers,
                metric=prompt.metric,
                max_new_tokens=prompt.max_new_tokens,
                source=prompt.source,
                dense=answer,
            )
            for prompt, answer in zip(prompts, answers, strict=True)
        )
        meta = WorkloadMeta(key=path.name, prompts=stored, dense_seconds=seconds)
        with (folder / META).open("w") as file:
            file.write(meta.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        folder.chmod(0o755)
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
