from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from evaluators.measure import current_environment
from evaluators.measure.speed import SpeedColumn, SpeedReport, Spread
from evaluators.serving.report import Failure, ServingReport, read_speed
from evaluators.serving.table import shown
from tests.evaluators.serving.documents import MODEL, WORK, decode, dense, load, report, sparse


def text_of(found: ServingReport, width: int) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(shown(found))
    return console.export_text()


def test_a_flow_is_compared_with_the_fastest_dense_engine_of_the_same_requests() -> None:
    found = report(
        dense(decode(30.0, 32.0), decode(9.0, tokens=4096)),
        dense(decode(20.0, 22.0), backend="fa3"),
        sparse(decode(10.0, 11.0, work=WORK), decode(12.0, tokens=1024, work=WORK)),
    )
    (compared,) = found.comparisons  # nothing dense has 1024 tokens
    assert compared.dense == "fa3, CUDA graphs"
    assert compared.sparse == "flashinfer, no CUDA graphs"
    assert compared.engine == "NVIDIA H200, SGLang 0.5.16"
    assert (compared.tokens_in, compared.batch) == (2048, 16)
    assert str(compared.work) == "5.0%"
    assert str(WORK.model_copy(update={"decode_steps": 12})) == "5.0% in 10 of 12 steps"
    assert compared.sparse_ms.median == 10.5
    assert compared.dense_ms.median == 21
    # Each repeat with each: 20/11, 20/10, 22/11, 22/10.
    assert compared.ratio.median == pytest.approx(2)
    assert 20 / 11 <= compared.ratio.low < 2 < compared.ratio.high <= 2.2


def test_the_rate_is_that_of_the_batch() -> None:
    point = decode(10.0, 20.0, 40.0)
    assert point.step.median == 20
    assert point.tokens_per_s.median == 800
    assert point.tokens_per_s.high < 1600


def test_a_report_is_one_json_document() -> None:
    found = report(dense(decode(20.0), loads=[load(20.0)]), sparse(decode(10.0, work=WORK)))
    document = json.loads(found.model_dump_json())
    assert document["kind"] == "serving"
    assert document["comparisons"][0]["ratio"]["median"] == 2
    assert read_speed(found.model_dump_json()) == found


def test_attention_timings_are_read_with_and_without_their_kind() -> None:
    spread = Spread(median=1.5, low=1.4, high=1.6)
    column = SpeedColumn(
        length=2048,
        batch=1,
        layers=4,
        heads=2,
        group=4,
        head_dim=64,
        kv="prompts",
        accuracy_measured=True,
        dense_kernel="sdpa",
        sparse_ms=spread,
        dense_ms=spread,
        ratio=spread,
    )
    timing = SpeedReport(
        columns=(column,), threads=1, alone=True, other_cores_busy=0.0, environment=current_environment()
    )
    old = json.loads(timing.model_dump_json())
    assert old.pop("kind") == "attention"
    assert read_speed(json.dumps(old)) == timing
    assert read_speed(timing.model_dump_json()) == timing
    with pytest.raises(ValidationError):
        read_speed(json.dumps(old | {"kind": "serving"}))


@pytest.mark.parametrize("width", [100, 140])
def test_the_table_says_what_was_measured_on_what(width: int) -> None:
    dummy = MODEL.model_copy(update={"weights": "dummy"})
    found = report(
        dense(decode(15.05), loads=[load(16.0)]),
        sparse(decode(7.0, work=WORK), loads=[load(8.0, WORK)]),
        weights=dummy,
    ).model_copy(update={"failed": (Failure(flow="slow", reason="took more than 5 s"),)})
    text = text_of(found, width)
    assert max(map(len, text.splitlines())) <= width
    for part in (
        "15.05",
        "2.15",
        "16.00",
        "32.00",
        "5.0%",
        "tiny (dummy weights)",
        "NVIDIA H200, SGLang 0.5.16, bfloat16",
        "prefill and queueing are not",
        "no CUDA graphs",
        '{"topk_val":14}',
        "slow was not measured: took more than 5 s",
    ):
        assert part in " ".join(text.split())
