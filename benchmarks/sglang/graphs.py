"""Decode steps in CUDA graphs against the same steps eagerly, and flows that are swapped under them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluators.probe import PROBE_PATH
from evaluators.serving.dummy import write_geometry
from evaluators.serving.requests import random_prompts
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.counters import EngineCounters

FLOWS = ("gqa_quest_sparse_attention", "block_sparse_attention")
LENGTHS, NEW = (3000, 700, 1500, 2100, 60), 48
"""Of five requests, which a graph for eight serves."""


class Served(BaseModel):
    """Answers of one flow: how many tokens are those of the eager engine, up to the first that differs;
    seconds of the swap to it, and GiB that were free on the GPU then."""

    model_config = ConfigDict(frozen=True)

    engine: str
    flow: str
    equal: tuple[int, ...]
    swap_s: float
    free_gib: float
    counters: EngineCounters

    @property
    def row(self) -> tuple[str, ...]:
        c = self.counters
        return (
            self.engine,
            self.flow,
            f"{' '.join(map(str, self.equal))} of {NEW}",
            f"{self.swap_s:.2f}",
            f"{self.free_gib:.2f}",
            f"{c.sparse_steps} of {c.decode_steps} {c.target}",
            f"{c.blocks_read:,} of {c.blocks_total:,}",
        )


COLUMNS = ("engine", "flow", "tokens as eagerly", "swap, s", "free, GiB", "sparse steps", "blocks read")


def compare(name: str, backend: str, swaps: int) -> list[Served]:
    """`name`: "probe", or a geometry with dummy weights. Every flow eagerly, then with graphs, `swaps` times
    over, dense attention in between."""
    with tempfile.TemporaryDirectory() as folder:
        dummy = name != "probe"
        options: dict[str, Any] = {
            "model_path": str(write_geometry(name, Path(folder)) if dummy else PROBE_PATH),
            "load_format": "dummy" if dummy else "auto",
            "attention_backend": backend,
        }
        eager, rows = _served(f"{name}, eager", options | {"disable_cuda_graph": True}, 1, None)
        return rows + _served(f"{name}, graphs", options, swaps, eager)[1]


def _served(
    name: str, options: dict[str, Any], swaps: int, expected: dict[str, list[list[int]]] | None
) -> tuple[dict[str, list[list[int]]], list[Served]]:
    import sglang
    import torch

    def config(flow: str) -> VortexConfig:
        return VortexConfig(module_name=flow, topk_val=13, block_size=16, dense_crossover=False)

    engine = sglang.Engine(
        vortex=config(FLOWS[0]),
        page_size=16,
        skip_tokenizer_init=True,
        mem_fraction_static=0.6,
        disable_radix_cache=True,
        log_level="error",
        **options,
    )
    found: dict[str, list[list[int]]] = {}
    rows = []
    try:
        prompts = [random_prompts(1, length, 16000, length)[0] for length in LENGTHS]
        for flow in (*FLOWS, None) * swaps:
            begin = time.perf_counter()
            control.deploy(engine, None if flow is None else config(flow))
            seconds = time.perf_counter() - begin
            limits = {"temperature": 0, "max_new_tokens": NEW, "ignore_eos": True}
            answers = [a["output_ids"] for a in engine.generate(input_ids=prompts, sampling_params=limits)]
            key = flow or "dense"
            wanted = (expected or found).setdefault(key, answers)
            rows.append(
                Served(
                    engine=name,
                    flow=key,
                    equal=tuple(_equal(a, b) for a, b in zip(answers, wanted, strict=True)),
                    swap_s=seconds,
                    free_gib=torch.cuda.mem_get_info()[0] / 2**30,
                    counters=control.counters(engine),
                )
            )
    finally:
        engine.shutdown()
    return found, rows


def _equal(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = zip(ours, theirs, strict=True)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(ours))
