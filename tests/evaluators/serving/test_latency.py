from __future__ import annotations

import numpy as np
import pytest

from evaluators.serving.latency import LoadPlan, load_point
from tests.evaluators.serving.traces import trace

PLAN = LoadPlan(rates=(10.0,), requests=100, length=64, new=11)


def test_percentiles_are_over_requests() -> None:
    steps = np.linspace(0.001, 0.100, 100)
    traces = [trace(0.1 * n + 0.5, step, 11, every=1, due=0.1 * n) for n, step in enumerate(steps)]
    point = load_point(traces, PLAN, 10.0)
    assert point.per_token_ms.p50 == pytest.approx(50.5)
    assert point.per_token_ms.p95 == pytest.approx(95.05)
    assert point.first_token_ms.p50 == pytest.approx(500)
    assert point.first_token_ms.p95 == pytest.approx(500)


def test_a_queue_shows_in_the_time_to_the_first_token_and_in_the_rate() -> None:
    # Ten requests a second are due, one a second gets its turn.
    traces = [trace(1.0 * n + 0.5, 0.01, 11, every=1, due=0.1 * n) for n in range(100)]
    point = load_point(traces, PLAN, 10.0)
    assert point.per_token_ms.p95 == pytest.approx(10)
    assert point.first_token_ms.p50 == pytest.approx(0.5e3 + 0.9e3 * 49.5)
    assert point.finished_rate == pytest.approx(100 / 99.6)
