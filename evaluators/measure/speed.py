"""Measured speed of contenders: a report, never an objective.

One decode step's attention is timed, of all layers: for the candidate everything that its runtime does
(plan, summaries, scores, selection, sparse attention, and dense attention in skipped layers), for dense
attention the fastest way there is on this machine. Both are timed in turn, many times, while nothing else
runs; the spread is reported.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluators.measure.environment import Environment, current_environment

if TYPE_CHECKING:
    from evaluators.measure.kv import Cache
    from evaluators.measure.workload import Workload
    from vortex.config import VortexConfig
    from vortex.engine.hf.geometry import ModelShape
    from vortex.graph.model import FlowGraph
    from vortex.runtime.session import DecodeSession

SPREAD = (0.1, 0.9)
LONG = 32_768
BUSY_CORES = 0.2


class Spread(BaseModel):
    """Median, and the 10th and 90th percentile of repeated timings."""

    model_config = ConfigDict(frozen=True)

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, high = np.quantile(values, SPREAD)
        return cls(median=statistics.median(values), low=float(low), high=float(high))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


class SpeedColumn(BaseModel):
    """Attention of one decode step at one length.

    head_dim: features of a key; MLA's is a latent, of which `kv_lora_rank` (else 0) are the value.
    kv: "prompts" (the workload's own K/V) or "synthetic" (random K/V of the same geometry: the accuracy of
    the candidate was not measured at this length). ratio: dense time over sparse time, pair by pair; above
    1 the candidate is faster.
    """

    model_config = ConfigDict(frozen=True)

    length: int
    batch: int
    layers: int
    heads: int
    group: int
    head_dim: int
    kv_lora_rank: int = 0
    kv: Literal["prompts", "synthetic"]
    accuracy_measured: bool
    dense_kernel: str
    sparse_ms: Spread
    dense_ms: Spread
    ratio: Spread


class SpeedReport(BaseModel):
    """`alone`: other processes used less than a fifth of a core before the timing."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["attention"] = "attention"
    columns: tuple[SpeedColumn, ...]
    threads: int
    alone: bool
    other_cores_busy: float
    environment: Environment


def measure_speed(
    graph: FlowGraph,
    config: VortexConfig,
    workload: Workload,
    *,
    repeats: int = 60,
    long: int | None = LONG,
    long_batch: int = 1,
    seed: int = 0,
) -> SpeedReport:
    """Times a candidate on one prompt of the workload and, with `long`, on synthetic K/V of that many tokens.

    Call it when no worker is busy; the report says whether something else was.
    """
    import torch

    from evaluators.measure.kv import stored_cache, synthetic_cache
    from vortex.engine.hf.geometry import ModelShape

    shape = ModelShape.of(workload.model)
    busy = other_cores_busy()
    columns = [_column(graph, config, shape, stored_cache(workload), "prompts", repeats, seed)]
    if long:
        cache = synthetic_cache(shape, long, long_batch, seed)
        columns.append(_column(graph, config, shape, cache, "synthetic", repeats, seed))
    return SpeedReport(
        columns=tuple(columns),
        threads=torch.get_num_threads(),
        alone=busy < BUSY_CORES,
        other_cores_busy=busy,
        environment=current_environment(),
    )


def other_cores_busy(seconds: float = 0.3) -> float:
    """Cores in use on this machine while this process sleeps."""
    idle_before = _idle_seconds()
    begin = time.perf_counter()
    time.sleep(seconds)
    idle = (_idle_seconds() - idle_before) / (time.perf_counter() - begin)
    return max(0.0, (os.cpu_count() or 1) - idle)


def _idle_seconds() -> float:
    """Seconds that all cores together have idled since the start (proc_stat(5): fields idle and iowait)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def _column(
    graph: FlowGraph,
    config: VortexConfig,
    shape: ModelShape,
    cache: Cache,
    kv: Literal["prompts", "synthetic"],
    repeats: int,
    seed: int,
) -> SpeedColumn:
    import torch

    from evaluators.measure.dense_kernels import DENSE_KERNELS

    kernels = [kernel(cache, shape) for kernel in DENSE_KERNELS]
    sparse: list[float] = []
    dense: dict[str, list[float]] = {kernel.name: [] for kernel in kernels}
    with torch.inference_mode():
        for step, lengths in _steps(graph, config, shape, cache, repeats, seed):
            sparse.append(_timed(step))
            for kernel in kernels:
                dense[kernel.name].append(_timed(partial(kernel, lengths)))
    fastest = min(dense, key=lambda name: statistics.median(dense[name]))
    return SpeedColumn(
        length=int(cache.lengths.max()),
        batch=len(cache.lengths),
        layers=shape.layers,
        heads=shape.heads,
        group=shape.group,
        head_dim=shape.head_dim,
        kv_lora_rank=shape.kv_lora_rank,
        kv=kv,
        accuracy_measured=kv == "prompts",
        dense_kernel=fastest,
        sparse_ms=Spread.of([1e3 * s for s in sparse]),
        dense_ms=Spread.of([1e3 * s for s in dense[fastest]]),
        ratio=Spread.of([d / s for d, s in zip(dense[fastest], sparse, strict=True)]),
    )


def _timed(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _steps(
    graph: FlowGraph, config: VortexConfig, shape: ModelShape, cache: Cache, repeats: int, seed: int
) -> Iterator[tuple[Callable[[], None], np.ndarray]]:
    """The candidate's next decode step, and the sequence lengths in it. Steps go on as in a real decode, so
    that finished blocks are summarised when they finish; the first step, which summarises the prompt, is
    not given."""
    import torch

    from vortex.runtime.session import DecodeSession

    generator = torch.Generator().manual_seed(seed)
    batch = len(cache.lengths)
    q = torch.randn((batch, shape.heads * shape.group, shape.head_dim), generator=generator)
    new = [torch.randn((batch, shape.heads, shape.head_dim), generator=generator) for _ in range(2)]
    k, v = new[0], None if shape.latent else new[1]
    done = 0
    while done < repeats:
        session = DecodeSession(cache.pools, cache.pages, cache.lengths, shape.group, graph, config)

        def step(session: DecodeSession = session) -> None:
            session.begin_step()
            for layer in range(shape.layers):
                session.attend(layer, q, k, v, shape.scale)

        step()
        for _ in range(min(repeats - done, cache.room - 1)):
            yield step, session.lengths + 1
            done += 1
