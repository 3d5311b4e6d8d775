"""What was measured, as it is kept in JSON."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from benchmarks.kernels.timing import Timing
from evaluators.measure.environment import Environment


class DenseRow(BaseModel):
    """A dense kernel on one layer. `error`: the largest relative error of a query head's output."""

    model: str
    context: int
    batch: int
    name: str
    fair: bool
    timing: Timing
    eager: Timing
    floor_us: float
    error: float


class SparseRow(BaseModel):
    """A flow on one layer, block lists of `blocks` blocks. `timing`: the layer in a graph of `layers` of
    them; `parts`: what each stage takes of it; `kernels`: each kernel, as the profiler sees it. `recall`: the
    share of the blocks that the reference target chooses too; `error`: as DenseRow's, for the same blocks."""

    model: str
    context: int
    batch: int
    flow: str
    blocks: int
    layers: int
    timing: Timing
    eager: Timing
    parts: dict[str, float]
    kernels: dict[str, float]
    launches: float
    floor_us: float
    floors: dict[str, float]
    recall: float
    error: float


class PlanRow(BaseModel):
    """One plan of a step, captured in a graph, and launched from Python."""

    batch: int
    context: int
    table: bool
    timing: Timing
    eager: Timing
    launches: float


class TopKRow(BaseModel):
    """A way to choose `k` of `n` scores in each of `rows` rows. `recall` against the exact choice."""

    name: str
    rows: int
    n: int
    k: int
    scores: str
    timing: Timing
    floor_us: float
    recall: float


class ColdRow(BaseModel):
    """Milliseconds from a graph to the end of its first decode step, in a process that has decoded another
    flow: with an empty kernel cache, and again in the next such process."""

    flow: str
    model: str
    cold_ms: float
    cached_ms: float


class Results(BaseModel):
    """`failed`: what could not be measured, and why. `commit`: of the code, with what was changed since."""

    day: date
    commit: str
    environment: Environment
    copy_gb_s: float
    dense: list[DenseRow] = Field(default_factory=list)
    sparse: list[SparseRow] = Field(default_factory=list)
    plan: list[PlanRow] = Field(default_factory=list)
    topk: list[TopKRow] = Field(default_factory=list)
    cold: list[ColdRow] = Field(default_factory=list)
    failed: dict[str, str] = Field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def find(self, model: str, context: int, batch: int, flow: str) -> SparseRow | None:
        """The row of a flow on a case."""
        wanted = model, context, batch, flow
        rows = (row for row in self.sparse if (row.model, row.context, row.batch, row.flow) == wanted)
        return next(rows, None)

    def best_dense(self, model: str, context: int, batch: int) -> DenseRow | None:
        """The fastest fair dense kernel of a case."""
        rows = [
            row
            for row in self.dense
            if (row.model, row.context, row.batch) == (model, context, batch) and row.fair
        ]
        return min(rows, key=lambda row: row.timing.us, default=None)

    def unfair_dense(self, model: str, context: int, batch: int) -> DenseRow | None:
        """FlashInfer's CUDA-core kernel, the published baseline, where it was measured."""
        rows = [
            row
            for row in self.dense
            if (row.model, row.context, row.batch) == (model, context, batch) and not row.fair
        ]
        return rows[0] if rows else None


def merged(parts: list[dict[str, Any]]) -> Results:
    """Results of several runs as one: rows of a later one replace those of an earlier one that measured the
    same thing; day, commit and environment are the last one's."""
    found = [Results.model_validate(part) for part in parts]
    last = found[-1].model_copy(deep=True)
    for kind, keys in _KEYS.items():
        rows: dict[tuple[object, ...], BaseModel] = {}
        for result in found:
            for row in getattr(result, kind):
                rows[tuple(getattr(row, key) for key in keys)] = row
        setattr(last, kind, list(rows.values()))
    return last


_KEYS = {
    "dense": ("model", "context", "batch", "name"),
    "sparse": ("model", "context", "batch", "flow"),
    "plan": ("batch", "context", "table"),
    "topk": ("name", "rows", "n", "k", "scores"),
    "cold": ("flow", "model"),
}
