"""What the driver and a worker say to each other: one JSON document a line, never a pickle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from evaluators.executor.base import EvaluatorSpec, FailureKind
from evaluators.measure.measurement import Measurement


class Setup(BaseModel):
    """First message to a worker. `memory_bytes` None: no limit."""

    model_config = ConfigDict(frozen=True)

    evaluator: EvaluatorSpec
    memory_bytes: int | None
    journal: str | None


class Ready(BaseModel):
    """The evaluator is open."""

    model_config = ConfigDict(frozen=True)

    type: Literal["ready"] = "ready"
    pid: int
    host: str


class Broken(BaseModel):
    """The evaluator cannot be opened: no job can run in this worker."""

    model_config = ConfigDict(frozen=True)

    type: Literal["broken"] = "broken"
    reason: str


class Done(BaseModel):
    model_config = ConfigDict(frozen=True)

    type: Literal["done"] = "done"
    measurement: Measurement
    seconds: float


class Failed(BaseModel):
    """The evaluator raised."""

    model_config = ConfigDict(frozen=True)

    type: Literal["failed"] = "failed"
    failure: FailureKind
    reason: str
    seconds: float


Reply = Annotated[Ready | Broken | Done | Failed, Field(discriminator="type")]
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
