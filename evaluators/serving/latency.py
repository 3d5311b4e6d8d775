"""How long requests wait for their tokens when they arrive at random, at a given rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from evaluators.serving.report import LoadPoint, Percentiles
from evaluators.serving.requests import RawEngine, Trace, flush, poisson_arrivals, random_prompts, replay
from evaluators.serving.throughput import Watch, spent

WARM_UP = 2


class LoadPlan(BaseModel):
    """Requests of one length at each of the rates (requests a second, Poisson), the cache empty at first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[float, ...] = Field(min_length=1)
    requests: int = Field(default=64, ge=2)
    length: int = Field(ge=1)
    new: int = Field(default=128, ge=2)
    seed: int = 0


def measure_load(
    engine: RawEngine, vocabulary: int, plan: LoadPlan, watch: Watch = lambda: None
) -> tuple[LoadPoint, ...]:
    """One point a rate. Prompts and arrival times depend on the plan alone."""
    prompts = random_prompts(plan.requests, plan.length, vocabulary, plan.seed)
    replay(engine, prompts[:WARM_UP], plan.new)
    points = []
    for rate in plan.rates:
        flush(engine)
        before = watch()
        traces = replay(engine, prompts, plan.new, due=poisson_arrivals(plan.requests, rate, plan.seed))
        points.append(load_point(traces, plan, rate).model_copy(update={"work": spent(before, watch())}))
    return tuple(points)


def load_point(traces: Sequence[Trace], plan: LoadPlan, rate: float) -> LoadPoint:
    per_token = [
        (trace.last.seconds - trace.first.seconds) / (trace.last.tokens - trace.first.tokens)
        for trace in traces
    ]
    return LoadPoint(
        rate=rate,
        requests=len(traces),
        tokens_in=plan.length,
        tokens_out=plan.new,
        per_token_ms=percentiles(per_token),
        first_token_ms=percentiles([trace.first.seconds - trace.due for trace in traces]),
        finished_rate=len(traces) / max(trace.last.seconds for trace in traces),
    )


def percentiles(seconds: Sequence[float]) -> Percentiles:
    p50, p95 = np.quantile(seconds, (0.5, 0.95))
    return Percentiles(p50=1e3 * float(p50), p95=1e3 * float(p95))
