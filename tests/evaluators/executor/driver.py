"""A driver to be interrupted: `python -m tests.evaluators.executor.driver local|ray FOLDER` keeps two
workers busy, one of them hanging with a child of its own, and prints "busy" when both are."""

from __future__ import annotations

import json
import signal
import sys
import time

from evaluators.executor import EvaluatorSpec, Executor, Job, LocalExecutor, RayExecutor


def main(kind: str, folder: str) -> None:
    spec = EvaluatorSpec(
        factory="tests.evaluators.executor.misbehaving:factory", settings=json.dumps({"folder": folder})
    )
    executor: Executor = {"local": LocalExecutor, "ray": RayExecutor}[kind](spec, workers=2)
    with executor:
        executor.submit(Job(key="family:", split="search"))
        executor.submit(Job(key="sleep:600", split="search"))
        while len(executor.pids()) < 2:
            time.sleep(0.05)
        time.sleep(0.3)
        print("busy", flush=True)
        executor.wait()


if __name__ == "__main__":
    # A test run in the background of a shell inherits that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:3])
