from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.proposers.base import Known
from agent.proposers.forecast import Forecast
from evaluators.measure.pareto import Point, hypervolume
from search_spaces.candidate import Candidate
from search_spaces.knobs import Knobs
from search_spaces.seeds import seed_graphs
from tests.agent.proposers.views import known

QUEST, MEAN, CENTRED = (
    seed_graphs()[name]
    for name in ("gqa_quest_sparse_attention", "block_sparse_attention", "centered_block_sparse_attention")
)
SHARES = (0.08, 0.12, 0.2, 0.3, 0.5)


def measured(better: float = 0.0) -> list[Known]:
    """Two graphs at five budgets; Quest more accurate by `better`."""
    rows = []
    for i, share in enumerate(SHARES):
        for graph, more in ((MEAN, 0.0), (QUEST, better)):
            candidate = Candidate(graph, Knobs(topk_val=4 + i))
            accuracy = min(0.98, 0.9 * share**0.3 + more)
            rows.append(known(candidate, "", accuracy, share))
    return rows


def at(graph: object, share: float, block_size: int = 16) -> tuple[Candidate, float]:
    return Candidate(graph, Knobs(block_size=block_size, topk_val=7)), share  # type: ignore[arg-type]


def expected(forecast: Forecast, *points: tuple[Candidate, float]) -> list[float]:
    found: list[float] = forecast.accuracy([c for c, _ in points], [s for _, s in points]).tolist()
    return found


def test_accuracy_is_expected_to_grow_with_the_bytes() -> None:
    found = expected(Forecast(measured(), 1.0), *(at(MEAN, share) for share in (0.06, 0.1, 0.15, 0.25, 0.4)))
    assert found == sorted(found)
    assert found[2] == pytest.approx(0.9 * 0.15**0.3, abs=0.05)


def test_the_merit_of_a_graph_goes_with_it_and_with_its_like() -> None:
    forecast = Forecast(measured(better=0.15), 1.0)
    quest, mean, twin = expected(forecast, at(QUEST, 0.16), at(MEAN, 0.16), at(CENTRED, 0.16))
    assert quest > mean + 0.06
    assert abs(twin - mean) < abs(twin - quest) / 1.5  # another graph that ranks blocks as the mean does


def test_a_noisy_measurement_weighs_less() -> None:
    rows = measured()
    lucky = known(Candidate(QUEST, Knobs(topk_val=30)), "", 0.95, 0.1)
    sure = Forecast([*rows, lucky], 1.0)
    vague = Forecast([*rows, known(lucky.candidate, "", 0.95, 0.1)], 1.0)
    wide = Forecast([*rows, _with_interval(lucky, 0.5)], 1.0)
    assert expected(sure, at(QUEST, 0.1)) == expected(vague, at(QUEST, 0.1))
    plain = expected(Forecast(rows, 1.0), at(QUEST, 0.1))[0]
    assert plain < expected(wide, at(QUEST, 0.1))[0] < expected(sure, at(QUEST, 0.1))[0] - 0.01


def _with_interval(row: Known, width: float) -> Known:
    return replace(row, low=row.accuracy - width / 2, high=row.accuracy + width / 2)


def test_the_gain_is_what_the_hypervolume_would_grow_by() -> None:
    """Of a candidate that the forecast is nearly sure of."""
    rows = [_with_interval(row, 0.001) for row in measured(better=0.1)]
    forecast = Forecast(rows, 1.0)
    shares = [row.bytes / row.dense_bytes for row in rows]
    smooth = forecast.accuracy([row.candidate for row in rows], shares)
    front = [Point(str(i), float(a), s) for i, (a, s) in enumerate(zip(smooth, shares, strict=True))]
    front.append(Point("dense", 1.0, 1.0))
    candidate, share = at(QUEST, 0.16)
    new = Point("new", expected(forecast, (candidate, share))[0], share)
    wanted = hypervolume([*front, new], 1.0) - hypervolume(front, 1.0)
    assert wanted > 0.001
    assert forecast.gain([candidate], [share])[0] == pytest.approx(wanted, rel=0.35)


def test_nothing_is_gained_beyond_dense_attention_or_far_below_the_front() -> None:
    cheap = known(Candidate(QUEST, Knobs(topk_val=3)), "", 0.97, 0.07)
    forecast = Forecast([*measured(), *[_with_interval(cheap, 0.01)] * 3], 1.0)
    many = [at(MEAN, 1.0), at(MEAN, 1.7), at(MEAN, 0.4), at(QUEST, 0.065)]
    gains = forecast.gain([c for c, _ in many], [s for _, s in many])
    assert np.isfinite(gains).all()
    assert gains[:2].tolist() == [0.0, 0.0]
    assert 0.0 <= gains[2] < 0.2 * gains[3]
