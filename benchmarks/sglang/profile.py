"""Where the time of a decode step goes: what the GPU ran between two replays of its CUDA graph."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluators.serving.dummy import write_geometry
from evaluators.serving.requests import random_prompts
from vortex.config import VortexConfig

VOCABULARY, NEW = 151936, 24
IDLE = "(GPU idle)"
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


class Piece(BaseModel):
    """A kernel in one step: how often, and microseconds in all; `step` of the whole."""

    model_config = ConfigDict(frozen=True)

    run: str
    name: str
    count: float
    us: float
    step_us: float

    @property
    def row(self) -> tuple[str, ...]:
        share = self.us / self.step_us
        return (self.run, self.name[:90], f"{self.count:.1f}", f"{self.us:.1f}", f"{share:.1%}")


COLUMNS = ("engine", "on the GPU", "a step", "us a step", "share")


def profile(
    geometry: str, config: VortexConfig | None, backend: str, batch: int, lengths: Sequence[int], most: int
) -> list[Piece]:
    """The `most` longest pieces of a steady decode step at each length; `config` None is dense attention."""
    import sglang

    name = f"dense {backend}" if config is None else str(config.module_name)
    found: list[Piece] = []
    with tempfile.TemporaryDirectory() as folder:
        engine = sglang.Engine(
            model_path=str(write_geometry(geometry, Path(folder))),
            load_format="dummy",
            skip_tokenizer_init=True,
            attention_backend=backend,
            page_size=16,
            mem_fraction_static=0.8,
            disable_prefill_cuda_graph=True,
            cuda_graph_max_bs_decode=batch,
            log_level="error",
            **({} if config is None else {"vortex": config}),
        )
        try:
            for tokens in lengths:
                events = _trace(
                    engine, random_prompts(batch, tokens, VOCABULARY, 0), Path(folder, str(tokens))
                )
                found += pieces(f"{name}, {tokens} x {batch}", events)[:most]
        finally:
            engine.shutdown()
    return found


def _trace(engine: Any, prompts: list[list[int]], folder: Path) -> list[dict[str, Any]]:
    """Events of a generation whose prompts come from the prefix cache."""
    limits = {"temperature": 0, "max_new_tokens": NEW, "ignore_eos": True}
    engine.generate(input_ids=prompts, sampling_params=limits)
    engine.start_profile(output_dir=str(folder), activities=["CPU", "GPU"])
    engine.generate(input_ids=prompts, sampling_params=limits)
    engine.stop_profile()
    (trace,) = folder.glob("**/*.trace.json.gz")
    return json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]  # type: ignore[no-any-return]


def pieces(run: str, events: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """From a trace: what ran between replays, per step, longest first, and when nothing did. Raises
    RuntimeError for a trace without CUDA graphs."""
    found = sorted((e for e in events if e.get("cat") in ON_GPU), key=lambda e: e["ts"])
    replayed = {
        e["args"]["correlation"] for e in events if str(e.get("name", "")).startswith("cudaGraphLaunch")
    }
    starts: dict[int, float] = {}
    for event in found:
        launch = event["args"]["correlation"]
        if launch in replayed:
            starts.setdefault(launch, event["ts"])
    bounds = sorted(starts.values())[2:]  # the first steps are still filling the batch
    if len(bounds) < 3:
        raise RuntimeError(f"{run}: {len(starts)} graph replays in the trace, too few for a step")
    total, count = defaultdict[str, float](float), defaultdict[str, int](int)
    busy = 0.0
    for first, last in pairwise(bounds):
        inside = [e for e in found if first <= e["ts"] < last]
        for event in inside:
            total[event["name"]] += event["dur"]
            count[event["name"]] += 1
        busy += _covered([(e["ts"], e["ts"] + e["dur"]) for e in inside])
    steps = len(bounds) - 1
    step = mean(last - first for first, last in pairwise(bounds))
    total[IDLE], count[IDLE] = step * steps - busy, steps
    return [
        Piece(run=run, name=name, count=count[name] / steps, us=total[name] / steps, step_us=step)
        for name in sorted(total, key=lambda name: -total[name])
    ]


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of spans that are sorted by their starts."""
    length, end = 0.0, float("-inf")
    for first, last in spans:
        length += max(0.0, last - max(first, end))
        end = max(end, last)
    return length
