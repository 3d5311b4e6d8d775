"""What was measured of a serving engine, as documents: the ledger, `--json` and the tables read these."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, computed_field

from evaluators.measure.environment import Environment
from evaluators.measure.speed import SpeedReport, Spread

DENSE = "dense"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class EngineFacts(_Document):
    """How an engine ran, as it says itself. cuda_graphs: of decode. kv_tokens: how many the cache holds."""

    engine: str
    version: str
    device: str
    attention_backend: str
    dtype: str
    kv_cache_dtype: str
    page_size: int
    tp_size: int
    cuda_graphs: bool
    overlap_schedule: bool
    prefix_cache: bool
    kv_tokens: int | None

    @property
    def name(self) -> str:
        """For example "NVIDIA H200, SGLang 0.5.16"."""
        several = f"{self.tp_size} x " if self.tp_size > 1 else ""
        return f"{several}{self.device}, {self.engine} {self.version}"

    @property
    def mode(self) -> str:
        """For example "flashinfer, no CUDA graphs"."""
        return f"{self.attention_backend}, {'CUDA graphs' if self.cuda_graphs else 'no CUDA graphs'}"


class ModelFacts(_Document):
    """weights: "dummy" models have a real geometry and random weights, so only their speed means
    something."""

    name: str
    weights: Literal["checkpoint", "dummy"]
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    kv_lora_rank: int = 0

    @property
    def label(self) -> str:
        return f"{self.name} (dummy weights)" if self.weights == "dummy" else self.name


class SparseWork(_Document):
    """What a sparse engine counted on rank 0 while a point was measured: sums over steps, and over kv heads
    (rows) and sparse layers (blocks). crossover_steps: dense ones, where that is faster."""

    decode_steps: int
    sparse_steps: int
    rows_sparse: int
    rows_dense: int
    blocks_read: int
    blocks_total: int
    crossover_steps: int = 0

    @property
    def share(self) -> float:
        """Blocks read over what dense attention would have read in the same steps, dense steps left out."""
        return self.blocks_read / self.blocks_total if self.blocks_total else 1.0

    def __str__(self) -> str:
        if not self.sparse_steps:
            return "all: dense is faster"
        steps = f" in {self.sparse_steps} of {self.decode_steps} steps"
        steps = "" if self.sparse_steps == self.decode_steps else steps
        return f"{100 * self.share:.1f}%{steps}"


class DecodePoint(_Document):
    """One batch of requests of one length.

    step_ms: milliseconds of a decode step of the full batch, one value a repeat; no prefill is in them.
    published: new tokens of the whole batch over the seconds of its slowest request, prefill included, one
    value for each repeat that began with an empty prefix cache.
    """

    tokens_in: int
    tokens_out: int
    batch: int
    step_ms: tuple[float, ...] = Field(min_length=1)
    published: tuple[float, ...]
    work: SparseWork | None = None

    @property
    def step(self) -> Spread:
        return Spread.of(self.step_ms)

    @property
    def tokens_per_s(self) -> Spread:
        """Steady decode rate."""
        return Spread.of([1e3 * self.batch / step for step in self.step_ms])


class Percentiles(_Document):
    """Of requests, in milliseconds."""

    p50: float
    p95: float


class LoadPoint(_Document):
    """Requests that arrive at random. per_token: a request's time from its first token to its last, over
    the tokens after the first. first_token: from when the request was due. finished_rate: requests over the
    seconds until the last had finished; far below `rate`, the engine did not keep up."""

    rate: float
    requests: int
    tokens_in: int
    tokens_out: int
    per_token_ms: Percentiles
    first_token_ms: Percentiles
    finished_rate: float
    work: SparseWork | None = None


class Run(_Document):
    """One flow in one engine. graph: the hash of its graph; None is dense. config: as JSON."""

    flow: str
    graph: str | None = None
    config: str | None = None
    engine: EngineFacts
    decode: tuple[DecodePoint, ...] = ()
    load: tuple[LoadPoint, ...] = ()


class Failure(_Document):
    """A flow that could not be measured."""

    flow: str
    reason: str


class Comparison(_Document):
    """A sparse run against the fastest dense run of the same requests. ratio: dense over sparse time of a
    decode step, every repeat of one with every repeat of the other; above 1 the flow is faster. engine: the
    sparse one's name; sparse, dense: how the two ran."""

    flow: str
    engine: str
    sparse: str
    dense: str
    tokens_in: int
    tokens_out: int
    batch: int
    sparse_ms: Spread
    dense_ms: Spread
    ratio: Spread
    work: SparseWork


class ServingReport(_Document):
    """Runs of the same requests: same lengths, prompts, arrival times and number of new tokens."""

    kind: Literal["serving"] = "serving"
    date: datetime
    model: ModelFacts
    seed: int
    runs: tuple[Run, ...] = Field(min_length=1)
    failed: tuple[Failure, ...] = ()
    environment: Environment

    @property
    def dense(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.graph is None)

    @property
    def sparse(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.graph is not None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(
            compared
            for run in self.sparse
            for point in run.decode
            if (compared := _compare(run, point, self.dense)) is not None
        )


def _compare(run: Run, point: DecodePoint, dense: Iterable[Run]) -> Comparison | None:
    where = (point.tokens_in, point.tokens_out, point.batch)
    found = [
        (other, base)
        for other in dense
        for base in other.decode
        if (base.tokens_in, base.tokens_out, base.batch) == where
    ]
    if not found or point.work is None:
        return None
    other, base = min(found, key=lambda pair: statistics.median(pair[1].step_ms))
    return Comparison(
        flow=run.flow,
        engine=run.engine.name,
        sparse=run.engine.mode,
        dense=other.engine.mode,
        tokens_in=point.tokens_in,
        tokens_out=point.tokens_out,
        batch=point.batch,
        sparse_ms=point.step,
        dense_ms=base.step,
        ratio=Spread.of([slow / fast for slow in base.step_ms for fast in point.step_ms]),
        work=point.work,
    )


def _kind(document: Any) -> str:
    """Attention timings written before there were others do not say what they are."""
    if isinstance(document, Mapping):
        return str(document.get("kind", "attention"))
    return str(getattr(document, "kind", "attention"))


AnySpeed = Annotated[
    Annotated[SpeedReport, Tag("attention")] | Annotated[ServingReport, Tag("serving")],
    Discriminator(_kind),
]
"""What a candidate's evaluation of split "speed" holds."""

_ANY: TypeAdapter[SpeedReport | ServingReport] = TypeAdapter(AnySpeed)


def read_speed(text: str) -> SpeedReport | ServingReport:
    """The document of a ledger's row of split "speed"."""
    return _ANY.validate_json(text)
