"""An evaluator for tests: the job's key says what it does."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from evaluators.executor import Evaluator, Job
from evaluators.measure.measurement import Measurement, measurement_of
from evaluators.measure.samples import SampleResult


def result(job: Job, opened: int) -> Measurement:
    """A measurement that tells who made it: `model` is the process id, `length` how many jobs the evaluator
    ran, `device` which GPUs it was given, `seconds` its limit of address space."""
    prompts = job.prompts or (0, 1, 2)
    samples = [
        SampleResult(task="t", prompt=i, score=1.0, bytes=1.0, dense_bytes=2.0, new_tokens=1, prediction="x")
        for i in prompts
    ]
    return measurement_of(
        samples,
        split=job.split,
        workload="w",
        model=str(os.getpid()),
        engine="none",
        device=os.environ.get("CUDA_VISIBLE_DEVICES", "cpu"),
        length=opened,
        seconds=resource.getrlimit(resource.RLIMIT_AS)[0],
    )


class Misbehaving:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = 0

    def __call__(self, job: Job) -> Measurement:
        self._jobs += 1
        act, _, name = job.key.partition(":")
        if act == "once":  # does it in the first attempt only
            act, _, name = name.partition(":")
            marker = self._folder / f"once-{act}-{name}"
            if marker.exists():
                act = "ok"
            marker.touch()
        if act == "family":  # a child that outlives its parent unless it is killed too
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (self._folder / "child").write_text(str(child.pid))
            act = "killed" if name == "killed" else "hang"
        if act == "hang":
            while True:
                pass
        if act == "sleep":
            time.sleep(float(name))
        if act == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "exit":
            print("last words", flush=True)
            os._exit(7)
        if act == "hog":
            hoard = []
            while True:
                hoard.append(bytearray(2**24))
        if act == "error":
            raise ValueError(f"cannot do {name}")
        return result(job, self._jobs)


def factory(settings: str) -> Evaluator:
    return Misbehaving(Path(json.loads(settings)["folder"]))


def broken(settings: str) -> Evaluator:
    raise FileNotFoundError(f"no model in {settings}")
