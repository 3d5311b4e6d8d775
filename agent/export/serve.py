"""Whether the launch script of an exported folder serves it: one request over HTTP, and the counters of the
scheduler afterwards."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from agent.export.report import LAUNCH, ExportError, ExportReport
from agent.export.server import HOST, Completion, Server, ServerError, free_port

if TYPE_CHECKING:
    from vortex.config import VortexConfig

NEW = 16
SENTENCE = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
"""Every word is a token at least."""


class Served(BaseModel):
    """What one request did. `sparse_steps` of the `decode_steps` since the start were sparse; they read
    `blocks_read` of `blocks_total` blocks. `crossover_steps` would have been, and are faster dense."""

    model_config = ConfigDict(frozen=True)

    engine: str
    completion: Completion
    graph: str
    decode_steps: int
    sparse_steps: int
    crossover_steps: int = 0
    blocks_read: int
    blocks_total: int

    def problems(self, report: ExportReport) -> list[str]:
        """What contradicts the record."""
        found = []
        if self.graph != report.graph_hash:
            found.append(f"the server decodes with graph {self.graph[:12]}, not {report.graph_hash[:12]}")
        if self.completion.completion_tokens != NEW:
            found.append(f"the server answered {self.completion.completion_tokens} of {NEW} tokens")
        decided = self.sparse_steps + self.crossover_steps
        if decided < NEW - 1:  # the first token is the prefill's
            found.append(f"only {decided} of {NEW - 1} decode steps were sparse, or dense to be faster")
        return found

    @property
    def notes(self) -> list[str]:
        """What it leaves open."""
        if self.sparse_steps or not self.crossover_steps:
            return []
        return ["no sparse step was served: dense is faster for this one request (dense_crossover)"]


def serve(
    folder: Path, report: ExportReport, config: VortexConfig, model: Path, options: Sequence[str] = ()
) -> Served:
    """Start the launch script on a free port, send a request that is long enough for the policy to be sparse,
    read the counters, end the server. `options` are the server's. Raises ExportError."""
    prompt = SENTENCE * (1 + sparse_from(config, context(model)) // len(SENTENCE.split()))
    port = free_port()
    command = [str(folder.resolve() / LAUNCH), str(model.resolve()), *options]
    environment = {"HOST": HOST, "PORT": str(port), "PYTHON": sys.executable}
    with tempfile.TemporaryDirectory(prefix="vortex-") as place:
        try:
            with Server(command, port, Path(place) / "server.log", environment) as server:
                completion = server.complete(prompt, NEW)
                counters, info = server.counters(), server.info()
        except ServerError as error:
            raise ExportError(f"{LAUNCH}: {error}") from None
    return Served(
        engine=f"SGLang {info['version']}, {info['attention_backend']}",
        completion=completion,
        graph=counters.graph,
        decode_steps=counters.decode_steps,
        sparse_steps=counters.sparse_steps,
        crossover_steps=counters.crossover_steps,
        blocks_read=counters.blocks_read,
        blocks_total=counters.blocks_total,
    )


def context(model: Path) -> int:
    """Tokens that the model takes. Raises ExportError."""
    from vortex.engine.sgl.model_shape import read_shape

    shape = read_shape(model)
    if shape is None:
        raise ExportError(f"{model} holds no config.json: give the model's folder with --model")
    return shape.context


def sparse_from(config: VortexConfig, longest: int) -> int:
    """Tokens of a prompt whose answer the policy decodes sparsely from the first step to the last. Raises
    ExportError where the model takes none of that length."""
    from vortex.budget import chosen_blocks, parse_policy

    policy = parse_policy(config.schedule_policy) if config.schedule_policy is not None else None
    block = config.block_size or 16
    n = np.arange(1, (longest - NEW) // block)
    dense = np.flatnonzero(chosen_blocks(policy, n, config) >= n)
    blocks = int(n[dense[-1]]) + 1 if dense.size else 1
    if blocks > n[-1]:
        raise ExportError(f"the budget covers all of the {longest} tokens that the model takes")
    return blocks * block
