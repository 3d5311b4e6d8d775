"""What a run was asked to do. Written into the ledger, so that `--resume` continues with the same."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ProposerName = Literal["auto", "llm", "evolution", "random"]
ExecutorName = Literal["ray", "local"]
EngineName = Literal["hf", "sglang"]
SERVING = ("attention_backend", "dtype", "kv_dtype", "tp", "mem_fraction")
"""Options of a serving engine. None: its own choice for the machine."""


class SearchSettings(BaseModel):
    """Everything that decides the outcome of a search, the machine aside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: int = Field(default=50, ge=1)
    proposer: ProposerName = "auto"
    llm: str | None = None
    model: str | None = None
    length: int = Field(default=2048, ge=256)
    prompts_per_task: int = Field(default=8, ge=2)
    gate_per_task: int = Field(default=2, ge=1)
    heldout_per_task: int = Field(default=8, ge=2)
    engine: EngineName = "hf"
    attention_backend: str | None = None
    dtype: str | None = None
    kv_dtype: str | None = None
    tp: int | None = Field(default=None, ge=1)
    mem_fraction: float | None = Field(default=None, gt=0.0, lt=1.0)
    tasks: tuple[str, ...] = ()
    essays: str | None = None
    squad: str | None = None
    hotpot: str | None = None
    executor: ExecutorName = "ray"
    workers: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=400_000)
    accuracy_floor: float = Field(default=0.05, ge=0.0, le=1.0)
    contenders: int = Field(default=2, ge=0)
    timeout: float = Field(default=120.0, gt=0)
    repairs: int = Field(default=3, ge=0)
    max_proposals: int | None = Field(default=None, ge=1)
    patience: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _options_of_the_engine(self) -> Self:
        given = [name for name in SERVING if getattr(self, name) is not None]
        if given and self.engine != "sglang":
            names = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ValueError(f"{names}: for --engine sglang only")
        return self

    @property
    def proposal_limit(self) -> int:
        """Proposals after which the search gives up, whatever became of them."""
        return self.max_proposals or 20 * self.budget + 100
