"""An evaluator whose candidates can misbehave in the worker: the config's topk_val says how."""

from __future__ import annotations

import os
import time

from benchmarks.instant import InstantEvaluator, InstantSettings
from evaluators.executor import Job
from evaluators.measure import Measurement
from vortex.config import VortexConfig

HANG, CRASH, MEMORY = 61, 62, 63


class HostileEvaluator(InstantEvaluator):
    def __call__(self, job: Job) -> Measurement:
        how = VortexConfig.model_validate_json(job.config).topk_val if job.graph else 0
        if how == HANG:
            time.sleep(3600)
        if how == CRASH:
            os.abort()
        if how == MEMORY:
            bytearray(1 << 40)
        return super().__call__(job)


def open_evaluator(settings: str) -> HostileEvaluator:
    return HostileEvaluator(InstantSettings.model_validate_json(settings))
