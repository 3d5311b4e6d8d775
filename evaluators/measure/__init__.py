"""Measurement of both objectives, and what may be concluded from it. Start reading at `measurement.py`."""

from evaluators.measure.environment import Environment, current_environment
from evaluators.measure.measurement import ExcludedTask, Measurement, Split, combine
from evaluators.measure.samples import PromptKey, SampleResult

__all__ = [
    "Environment",
    "ExcludedTask",
    "Measurement",
    "PromptKey",
    "SampleResult",
    "Split",
    "combine",
    "current_environment",
]
