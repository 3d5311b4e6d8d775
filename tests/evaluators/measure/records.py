"""Measurements for tests: any scores, on any prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluators.measure.measurement import Measurement, Split, measurement_of
from evaluators.measure.samples import SampleResult

DENSE_BYTES = 1000.0


def measured(
    scores: Mapping[str, Sequence[float]],
    traffic: float = 500.0,
    split: Split = "heldout",
    workload: str = "w",
) -> Measurement:
    samples = [
        SampleResult(
            task=task,
            prompt=i,
            score=score,
            bytes=traffic,
            dense_bytes=DENSE_BYTES,
            new_tokens=8,
            prediction="",
        )
        for task, values in scores.items()
        for i, score in enumerate(values)
    ]
    return measurement_of(
        samples,
        split=split,
        workload=workload,
        model="none",
        engine="none",
        device="cpu",
        length=2048,
        seconds=0.0,
    )
