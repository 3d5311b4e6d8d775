"""Reports of serving engines, as a GPU would give them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from evaluators.measure import current_environment
from evaluators.serving.report import (
    DecodePoint,
    EngineFacts,
    LoadPoint,
    ModelFacts,
    Percentiles,
    Run,
    ServingReport,
    SparseWork,
)

MODEL = ModelFacts(name="tiny", weights="checkpoint", layers=4, heads=8, kv_heads=2, head_dim=64)
WORK = SparseWork(
    decode_steps=10, sparse_steps=10, rows_sparse=20, rows_dense=0, blocks_read=50, blocks_total=1000
)


def engine(backend: str = "flashinfer", *, graphs: bool = True) -> EngineFacts:
    return EngineFacts(
        engine="SGLang",
        version="0.5.16",
        device="NVIDIA H200",
        attention_backend=backend,
        dtype="bfloat16",
        kv_cache_dtype="auto",
        page_size=16,
        tp_size=1,
        cuda_graphs=graphs,
        overlap_schedule=graphs,
        prefix_cache=True,
        kv_tokens=1 << 20,
    )


def decode(*step_ms: float, tokens: int = 2048, work: SparseWork | None = None) -> DecodePoint:
    return DecodePoint(tokens_in=tokens, tokens_out=128, batch=16, step_ms=step_ms, published=(), work=work)


def load(per_token: float, work: SparseWork | None = None) -> LoadPoint:
    return LoadPoint(
        rate=4,
        requests=64,
        tokens_in=2048,
        tokens_out=128,
        per_token_ms=Percentiles(p50=per_token, p95=2 * per_token),
        first_token_ms=Percentiles(p50=300, p95=900),
        finished_rate=3.9,
        work=work,
    )


def dense(*points: DecodePoint, backend: str = "flashinfer", loads: Sequence[LoadPoint] = ()) -> Run:
    return Run(flow="dense", engine=engine(backend), decode=points, load=tuple(loads))


def sparse(*points: DecodePoint, name: str = "quest", loads: Sequence[LoadPoint] = ()) -> Run:
    config = '{"topk_val":14}'
    return Run(
        flow=name,
        graph="f" * 64,
        config=config,
        engine=engine(graphs=False),
        decode=points,
        load=tuple(loads),
    )


def report(*runs: Run, weights: ModelFacts = MODEL) -> ServingReport:
    return ServingReport(
        date=datetime(2026, 11, 21, tzinfo=UTC),
        model=weights,
        seed=0,
        runs=runs,
        environment=current_environment(),
    )
