"""What a workload is made of, and the hash by which it is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

WorkloadSplit = Literal["search", "heldout"]

FORMAT = 1
"""Version of the files of a workload."""
SEEDS = 400_000
SEED_OFFSET: dict[WorkloadSplit, int] = {"search": 100_000, "heldout": 500_000}
"""Splits draw from ranges of seeds that do not meet, below the seeds of the model's card."""
HASHED_BYTES = 1 << 28
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


class WorkloadSpec(BaseModel):
    """Prompts to measure on.

    model: folder of a transformers model with its tokenizer.
    length: tokens of a prompt and its new tokens together.
    samples: prompts of each task; `gate` of them, the first ones, make the gate.
    essay, squad, hotpotqa: data of the published benchmark, see `evaluators.ruler.Sources`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path
    tasks: tuple[str, ...] = Field(min_length=1)
    length: int = Field(default=2048, ge=64)
    samples: int = Field(default=8, ge=1)
    gate: int = Field(default=2, ge=1)
    split: WorkloadSplit = "search"
    seed: int = Field(default=0, ge=0, lt=SEEDS)
    essay: str | None = None
    squad: str | None = None
    hotpotqa: str | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> WorkloadSpec:
        if self.gate > self.samples:
            raise ValueError(
                f"gate={self.gate} prompts of a task cannot be taken from samples={self.samples}"
            )
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"a task is named twice: {', '.join(self.tasks)}")
        return self

    @property
    def prompt_seed(self) -> int:
        return SEED_OFFSET[self.split] + self.seed

    @property
    def key(self) -> str:
        """Hash of the model, its tokenizer, what the prompts depend on, and the versions that made them."""
        from evaluators.ruler import Sources

        document = self.model_dump_json(exclude={"model", "gate"})
        data = Sources(self.essay, self.squad, self.hotpotqa).version
        libraries = [
            f"{name} {version(name)}" for name in ("torch", "transformers", "tokenizers", "wonderwords")
        ]
        parts = (str(FORMAT), document, data, hash_model(self.model), hash_generator(), *libraries)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def heldout(self, tasks: Iterable[str] | None = None, samples: int | None = None) -> WorkloadSpec:
        """The same measurement on prompts that the search does not use."""
        update = {"split": "heldout", "tasks": tuple(tasks or self.tasks), "samples": samples or self.samples}
        return WorkloadSpec.model_validate({**self.model_dump(), **update})


@cache
def hash_model(folder: Path) -> str:
    """Hash of weights, config and tokenizer. Files above 256 MiB count by name, size and time of change."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: give the folder of a transformers model")
    digest = hashlib.sha256()
    for path in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} ".encode())
        digest.update(str(stat.st_mtime_ns).encode() if stat.st_size > HASHED_BYTES else path.read_bytes())
    return digest.hexdigest()


@cache
def hash_generator() -> str:
    """Hash of the source of the prompt generators: edited generators make other prompts."""
    import evaluators.ruler

    folder = Path(str(evaluators.ruler.__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.glob("**/*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
