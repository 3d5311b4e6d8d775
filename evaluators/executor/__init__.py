"""Placement of evaluations on worker processes. Start reading at `base.py`."""

from evaluators.executor.base import (
    Evaluator,
    EvaluatorSpec,
    Executor,
    ExecutorError,
    Job,
    Limits,
    Outcome,
)
from evaluators.executor.journal import Journal, JournalEntry
from evaluators.executor.local import LocalExecutor
from evaluators.executor.ray import RayExecutor

__all__ = [
    "Evaluator",
    "EvaluatorSpec",
    "Executor",
    "ExecutorError",
    "Job",
    "Journal",
    "JournalEntry",
    "Limits",
    "LocalExecutor",
    "Outcome",
    "RayExecutor",
]
