"""What an exported folder holds, and the record in its `report.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluators.measure.measurement import ExcludedTask, Measurement
from evaluators.measure.spec import WorkloadSpec, WorkloadSplit
from evaluators.measure.stats import Interval
from search_spaces.knobs import Knobs
from vortex.errors import VortexError

FORMAT = 1
FLOW, GRAPH, CONFIG, LAUNCH, REPORT, README = (
    "flow.py",
    "graph.json",
    "vortex_config.json",
    "launch.sh",
    "report.json",
    "README.md",
)
FILES = (FLOW, GRAPH, CONFIG, LAUNCH, REPORT, README)
PROBE = "probe"
"""Stands for the shipped probe model, wherever it is installed."""


class ExportError(VortexError):
    """Nothing can be exported, or an exported folder cannot be read; the message says what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Origin(_Model):
    """Where the record comes from."""

    ledger: str
    run: str
    candidate: int


class Prompts(_Model):
    """The prompts measured on: enough to make them again. `key` is the workload's identity at the time."""

    model: str
    tasks: tuple[str, ...]
    excluded: tuple[ExcludedTask, ...]
    length: int
    samples: int
    gate: int
    split: WorkloadSplit
    seed: int
    essay: str | None = None
    squad: str | None = None
    hotpotqa: str | None = None
    key: str

    def spec(self, model: Path | None = None) -> WorkloadSpec:
        """The workload; `model` is where the model lies here, if not where the record says."""
        folder = model or (_probe() if self.model == PROBE else Path(self.model))
        values = self.model_dump(exclude={"model", "excluded", "key"})
        return WorkloadSpec.model_validate({**values, "model": folder})


def _probe() -> Path:
    from evaluators.probe import PROBE_PATH

    return PROBE_PATH


class Serving(_Model):
    """What was asked of an SGLang engine, named as in `evaluators.serving.engine.ServingOptions`. None: what
    that chooses for the machine."""

    attention_backend: str | None = None
    dtype: str | None = None
    kv_cache_dtype: str | None = None
    tp_size: int | None = None
    mem_fraction_static: float | None = None


class Result(_Model):
    """A measurement with its interval, and the paired difference to dense attention on the same prompts."""

    accuracy: Interval
    difference_to_dense: Interval | None
    measurement: Measurement

    @property
    def bytes_ratio(self) -> float:
        return self.measurement.bytes_ratio


class ExportReport(_Model):
    """`result` is what `--verify` measures again: held-out prompts, or the search's where there are none.
    `serving` is None where transformers measured it."""

    format: int = FORMAT
    name: str
    hash: str
    graph_hash: str
    chosen: str
    hypothesis: str | None
    proposer: str
    parents: tuple[str, ...]
    knobs: Knobs
    origin: Origin
    prompts: Prompts
    serving: Serving | None = None
    result: Result
    search: Result | None
    dense_accuracy: float | None
    environment: dict[str, Any]


def read_report(folder: Path) -> ExportReport:
    """The record of an exported folder. Raises ExportError."""
    path = folder / REPORT
    try:
        return ExportReport.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{folder} is not an exported folder: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ExportError(f"{path} is not a report of this version: {where}: {first['msg']}") from None
