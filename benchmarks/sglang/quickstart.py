"""The published Quick Start: an engine with a VortexConfig generates, and its scheduler says how."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluators.probe import PROBE_PATH
from evaluators.serving.dummy import write_geometry
from vortex.config import VortexConfig
from vortex.engine.sgl import control
from vortex.engine.sgl.counters import EngineCounters

LAUNCH = {
    "page_size": 16,
    "attention_backend": "flashinfer",
    "disable_overlap_schedule": True,
    "mem_fraction_static": 0.85,
}
"""As published. Prompts are token ids, so that a geometry, which has no tokenizer, starts too."""
CONFIG = VortexConfig(module_name="gqa_quest_sparse_attention", topk_val=30, block_size=16)
REQUESTS, TOKENS, NEW = 4, 4096, 32


class Started(BaseModel):
    """One launch: `new` tokens of each request; seconds of the engine's start and of the generation."""

    model_config = ConfigDict(frozen=True)

    model: str
    start_s: float
    generate_s: float
    new: tuple[int, ...]
    counters: EngineCounters

    @property
    def row(self) -> tuple[str, ...]:
        c = self.counters
        return (
            self.model,
            f"{self.start_s:.0f}",
            " ".join(map(str, self.new)),
            f"{c.sparse_steps} of {c.decode_steps}",
            str(c.crossover_steps),
            f"{c.blocks_read:,} of {c.blocks_total:,} ({c.blocks_read / max(1, c.blocks_total):.1%})",
            c.dense_backend,
        )


COLUMNS = (
    "model",
    "start, s",
    "new tokens",
    "sparse steps",
    "dense, being faster",
    "blocks read",
    "dense backend",
)


def launch(name: str) -> Started:
    """`name`: "probe", or a geometry with dummy weights."""
    import sglang

    with tempfile.TemporaryDirectory() as folder:
        dummy = name != "probe"
        model = write_geometry(name, Path(folder)) if dummy else PROBE_PATH
        begin = time.perf_counter()
        engine = sglang.Engine(
            model_path=str(model),
            load_format="dummy" if dummy else "auto",
            skip_tokenizer_init=True,
            vortex=CONFIG,
            **LAUNCH,
        )
        try:
            ready = time.perf_counter()
            rng = random.Random(0)
            answers = engine.generate(
                input_ids=[rng.choices(range(1000, 16000), k=TOKENS) for _ in range(REQUESTS)],
                sampling_params={"temperature": 0.0, "max_new_tokens": NEW, "ignore_eos": True},
            )
            done = time.perf_counter()
            counters = control.counters(engine)
        finally:
            engine.shutdown()
    return Started(
        model=f"{name} (dummy weights)" if dummy else name,
        start_s=ready - begin,
        generate_s=done - ready,
        new=tuple(len(answer["output_ids"]) for answer in answers),
        counters=counters,
    )
