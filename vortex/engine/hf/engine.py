"""Generation with a sparse decoder in five lines of Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from vortex.config import VortexConfig
from vortex.engine.hf.geometry import ModelShape, check_config, check_graph, check_lengths
from vortex.engine.hf.loop import decode_loop
from vortex.engine.hf.prefill import Prefilled, prefill
from vortex.errors import ConfigError, FlowTypeError
from vortex.graph.model import FlowGraph
from vortex.runtime.default_target import default_target
from vortex.runtime.pool import PAGE, KVPool, PageTable
from vortex.runtime.session import DecodeSession


class Engine:
    """Greedy generation through a flow.

    ```
    from vortex.config import VortexConfig
    from vortex.engine.hf import Engine

    engine = Engine("path/to/model", "gqa_quest_sparse_attention", VortexConfig(topk_val=32))
    print(engine.generate(["The special magic number is"], max_new_tokens=16)[0])
    ```

    `flow` is the name of a registered flow, a flow file or `graph.json` (trusted), a FlowGraph, or None for
    dense; a model with MLA needs a vFlowMLA. A model given as a path is loaded in float32 on the CPU, with
    its tokenizer. `target`: by default generated kernels (`triton`) for a model on a GPU, `torch` on a CPU.
    """

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        flow: FlowGraph | str | Path | None = "gqa_quest_sparse_attention",
        config: VortexConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        target: str | None = None,
    ) -> None:
        self.config = config or VortexConfig()
        self.target = target
        if isinstance(model, PreTrainedModel):
            self.model, self.tokenizer = model, tokenizer
        else:
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
            self.tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
        self.shape = ModelShape.of(self.model)
        check_config(self.config, self.shape, target or default_target(self.model.device.type))
        self.graph = _graph(flow, self.shape, self.config)
        check_graph(self.graph, self.shape)

    @overload
    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int] = 32) -> list[str]: ...
    @overload
    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int | Sequence[int] = 32
    ) -> list[list[int]]: ...
    def generate(
        self, prompts: Sequence[str] | Sequence[Sequence[int]], max_new_tokens: int | Sequence[int] = 32
    ) -> list[str] | list[list[int]]:
        """Continue every prompt: text for text, token ids for token ids (an end token is kept)."""
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if not texts:
            return self._tokens([list(map(int, prompt)) for prompt in prompts], max_new_tokens)
        if len(texts) < len(prompts) or self.tokenizer is None:
            raise ConfigError("prompts must be all texts (with a tokenizer) or all token ids")
        new = self._tokens([self.tokenizer(text)["input_ids"] for text in texts], max_new_tokens)
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in new]

    def _tokens(self, prompts: list[list[int]], max_new_tokens: int | Sequence[int]) -> list[list[int]]:
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        if not prompts:
            return []
        if not all(prompts) or min(limits) < 1:
            raise ConfigError("every prompt needs at least one token, and max_new_tokens must be at least 1")
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        check_lengths((lengths + limits).tolist(), self.config, self.shape)
        counts = np.repeat(-(-(lengths + limits) // PAGE), self.shape.heads)
        pages = PageTable.contiguous(np.cumsum(counts) - counts, counts)
        dtype, device = self.model.dtype, self.model.device
        pools = [self.shape.pool(int(counts.sum()), dtype, device) for _ in range(self.shape.layers)]
        first = [self._prefill(index, prompt, pools, pages) for index, prompt in enumerate(prompts)]
        session = DecodeSession(pools, pages, lengths, self.shape.group, self.graph, self.config, self.target)
        return decode_loop(self.model, session, first, limits)

    def _prefill(self, index: int, prompt: list[int], pools: list[KVPool], pages: PageTable) -> int:
        done: Prefilled = prefill(self.model, prompt)
        for pool, parts in zip(pools, done.layers, strict=True):
            for head in range(self.shape.heads):
                start = int(pages.pages[index * self.shape.heads + head, 0]) * PAGE
                pool.write(slice(start, start + len(prompt)), *(part[head] for part in parts))
        return done.first


def _graph(flow: FlowGraph | str | Path | None, shape: ModelShape, config: VortexConfig) -> FlowGraph | None:
    if flow is None or isinstance(flow, FlowGraph):
        return flow
    from vortex.flow import load_graph

    try:
        return load_graph(flow, geometry=shape.geometry(config.block_size or 16))
    except FlowTypeError:
        check_graph(load_graph(flow), shape)  # a flow for the other kind of model is told so
        raise
