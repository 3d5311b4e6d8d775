"""A decode step of a batch: what steps add to the time of a generation whose prompts are cached."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmarks.sglang.geometry import VOCABULARY
from vortex.config import VortexConfig

CONTENDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "flashinfer": lambda: {"attention_backend": "flashinfer"},
    "fa3": lambda: {"attention_backend": "fa3"},
    "vortex": lambda: {
        "attention_backend": "flashinfer",
        "disable_overlap_schedule": True,
        "vortex": VortexConfig(module_name="block_sparse_attention", topk_val=62),
    },
}
"""Arguments of each engine. Vortex reads 64 blocks of 16: the chosen ones, the first and the last."""


class DecodeStep(BaseModel):
    """Milliseconds a decode step, one value a repeat; `tokens` is the length of each of `batch` prompts."""

    model_config = ConfigDict(frozen=True)

    contender: str
    batch: int
    tokens: int
    new_tokens: int
    step_ms: tuple[float, ...]

    @property
    def line(self) -> str:
        low, high = min(self.step_ms), max(self.step_ms)
        return (
            f"| {self.contender} | {self.batch} | {self.tokens:,} | {self.new_tokens} "
            f"| {statistics.median(self.step_ms):.2f} | {low:.2f} to {high:.2f} |"
        )


HEADER = "| decode | batch | tokens in | new | ms a step | spread |\n|---|---|---|---|---|---|"


@contextmanager
def started(model: Path, **arguments: Any) -> Iterator[Any]:
    """An `sgl.Engine` of bare token ids, shut down at the end."""
    import sglang

    begin = time.perf_counter()
    engine = sglang.Engine(
        model_path=str(model),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        page_size=16,
        disable_prefill_cuda_graph=True,
        cuda_graph_max_bs_decode=32,
        sampling_backend="pytorch",
        grammar_backend="none",
        log_level="error",
        **arguments,
    )
    try:
        print(f"engine started in {time.perf_counter() - begin:.1f} s", flush=True)
        yield engine
    finally:
        engine.shutdown()


def measure_steps(
    engine: Any,
    contender: str,
    lengths: Sequence[int],
    *,
    batch: int,
    new_tokens: int,
    repeats: int,
    seed: int,
) -> Iterator[DecodeStep]:
    """For each length: `repeats` times (`new_tokens` minus one) over the steps between."""
    rng = random.Random(seed)

    def seconds(prompts: list[list[int]], limit: int) -> float:
        begin = time.perf_counter()
        parameters = {"temperature": 0.0, "max_new_tokens": limit, "ignore_eos": True}
        engine.generate(input_ids=prompts, sampling_params=parameters)
        return time.perf_counter() - begin

    for length in lengths:
        prompts = [rng.choices(VOCABULARY, k=length) for _ in range(batch)]
        seconds(prompts, new_tokens)  # prefills, warms up
        steps = [
            (seconds(prompts, new_tokens) - seconds(prompts, 1)) / (new_tokens - 1) * 1e3
            for _ in range(repeats)
        ]
        yield DecodeStep(
            contender=contender, batch=batch, tokens=length, new_tokens=new_tokens, step_ms=tuple(steps)
        )
        engine.flush_cache()
