from __future__ import annotations

from dataclasses import replace

import pytest

from evaluators.serving.errors import ServingError
from evaluators.serving.report import SparseWork
from evaluators.serving.throughput import published_rate, spent, steady_step
from tests.evaluators.serving.traces import trace

WORK = SparseWork(
    decode_steps=10, sparse_steps=8, rows_sparse=16, rows_dense=4, blocks_read=48, blocks_total=480
)


def test_a_step_is_timed_while_all_requests_decode() -> None:
    # Alone, the first two are twice as fast as all three together.
    early = [trace(begin, 0.005, 400) for begin in (0.1, 0.2)]
    late = trace(1.0, 0.010, 64)
    assert steady_step([*early, late]) == pytest.approx(0.010)


def test_prefill_does_not_enter() -> None:
    quick, slow = [trace(begin, 0.02, 64) for begin in (0.1, 9.0)], [trace(0.0, 0.02, 1000)]
    assert steady_step([*slow, quick[1]]) == pytest.approx(steady_step([*slow, quick[0]]))


def test_chunks_of_one_step_may_come_back_at_slightly_different_times() -> None:
    together = [trace(1.0 + 1e-5 * n, 0.01, 64, every=8) for n in range(16)]
    assert steady_step(together) == pytest.approx(0.01, rel=1e-3)


def test_requests_that_never_decoded_together_are_an_error() -> None:
    with pytest.raises(ServingError, match="hardly ever decoded together"):
        steady_step([trace(0.0, 0.01, 64), trace(1.0, 0.01, 64)])


def test_a_retracted_request_is_an_error() -> None:
    with pytest.raises(ServingError, match="1 requests were retracted"):
        steady_step([trace(0.0, 0.01, 64), replace(trace(0.0, 0.01, 64), retractions=1)])


def test_the_published_measure_is_over_the_slowest_request() -> None:
    quick, slow = trace(0.5, 0.01, 101), trace(1.0, 0.03, 101)
    assert published_rate([quick, slow]) == pytest.approx(202 / 4.0)


def test_work_is_what_was_counted_in_between() -> None:
    later = SparseWork(**{name: 3 * count for name, count in WORK.model_dump().items()})
    work = spent(WORK, later)
    assert work == SparseWork(**{name: 2 * count for name, count in WORK.model_dump().items()})
    assert work.share == 0.1
    assert spent(None, None) is None


def test_a_sparse_engine_that_ran_dense_is_an_error() -> None:
    with pytest.raises(ServingError, match="saw no decode step"):
        spent(WORK, WORK)
    dense = WORK.model_copy(update={"decode_steps": 30, "rows_dense": 400})
    with pytest.raises(ServingError, match="none of 20 decode steps was sparse"):
        spent(WORK, dense)
    faster = dense.model_copy(update={"crossover_steps": 20})
    work = spent(WORK, faster)
    assert work is not None
    assert (work.share, str(work)) == (1.0, "all: dense is faster")
