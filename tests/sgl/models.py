"""A tiny random Qwen3, the answers of an engine that serves it, and what transformers answers in its place.

Answers carry the log-probabilities of the whole vocabulary at every new token. That makes them comparable
step by step: transformers is forced to continue with the engine's own tokens, so one prefix lies behind
every pair of numbers, and a step that reads other blocks shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from vortex.config import VortexConfig
from vortex.engine.hf import VortexCache
from vortex.engine.hf.attention import attention_implementation
from vortex.engine.hf.geometry import ModelShape

VOCABULARY = 128
LAYERS = 3
TOLERANCE = 2e-4
"""Of log-probabilities: two float32 programs of one model differ by about 1e-5, one block more or less in
one step by about 1."""


def random_qwen3(**sizes: int) -> PreTrainedModel:
    """Groups of 4 query heads over 2 kv heads. Weights are large enough for attention to matter."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **{
            "num_hidden_layers": LAYERS,
            "hidden_size": 64,
            "intermediate_size": 96,
            "vocab_size": VOCABULARY,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            **sizes,
        },
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config).eval()


def random_prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def settings(name: str, **changes: object) -> VortexConfig:
    """A config that reads 3 blocks of each row: the first, the best and the last. Scores are not rounded."""
    fields = {"module_name": name, "topk_val": 1, "block_size": 16, "dtype": "float32", **changes}
    return VortexConfig.model_validate(fields)


@dataclass(frozen=True)
class Answer:
    """New tokens and the log-probabilities they were chosen by, `[tokens, vocabulary]`; how many tokens of
    the prompt came from the prefix cache, and how often the request was retracted."""

    tokens: list[int]
    logprobs: torch.Tensor
    cached: int
    retractions: int


def ask(engine: Any, prompts: Sequence[Sequence[int]], new: int | Sequence[int] = 16) -> list[Answer]:
    """Greedy answers of a batch, an end token or not; `new` tokens for all or for each."""
    limits = [new] * len(prompts) if isinstance(new, int) else new
    outputs = engine.generate(
        input_ids=[list(prompt) for prompt in prompts],
        sampling_params=[{"temperature": 0, "max_new_tokens": n, "ignore_eos": True} for n in limits],
        return_logprob=True,
        token_ids_logprob=[list(range(VOCABULARY))] * len(prompts),
    )
    return [_answer(output["output_ids"], output["meta_info"]) for output in outputs]


def _answer(tokens: list[int], meta: dict[str, Any]) -> Answer:
    rows = [[logprob for logprob, *_ in step] for step in meta["output_token_ids_logprobs"]]
    return Answer(tokens, torch.tensor(rows), meta["cached_tokens"], meta["num_retractions"])


class StoredCache(VortexCache):
    """Keeps keys and values with the numbers that storing them as `stored` leaves."""

    stored = torch.float32

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        kept = (x.to(self.stored).to(x.dtype) for x in (key_states, value_states))
        return super().update(*kept, *args, **kwargs)


@torch.inference_mode()
def forced(
    model: PreTrainedModel,
    prompt: Sequence[int],
    tokens: Sequence[int],
    config: VortexConfig | None = None,
    stored: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Log-probabilities `[tokens, vocabulary]` of transformers, decoding `tokens` after `prompt` through the
    flow that `config` names (None: densely): those of the first token come from the prompt's prefill.
    `stored`: the format of the KV cache."""
    graph = None
    if config is not None:
        graph = config.load_graph(ModelShape.of(model).geometry(config.block_size or 16))
    cache = StoredCache(model, graph, config)
    cache.stored = stored
    logits = []
    with attention_implementation(model, "vortex"):
        for ids in (list(prompt), *([token] for token in tokens[:-1])):
            out = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
            logits.append(out.logits[0, -1])
    return torch.stack(logits).log_softmax(-1)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two answers' log-probabilities."""
    return float((one - other).abs().max())
