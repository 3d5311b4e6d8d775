"""Tiny random models, the answers of an engine that serves one, and what transformers answers in its place.

Answers carry the log-probabilities of the whole vocabulary at every new token. That makes them comparable
step by step: transformers is forced to continue with the engine's own tokens, so one prefix lies behind
every pair of numbers, and a step that reads other blocks shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from vortex.config import VortexConfig
from vortex.engine.hf import VortexCache
from vortex.engine.hf.attention import attention_implementation
from vortex.engine.hf.geometry import ModelShape

VOCABULARY = 128
LAYERS = 3
TOLERANCE = 2e-4
"""Of log-probabilities: two float32 programs of one model differ by about 1e-5, one block more or less in
one step by about 1."""


SIZES = {
    "num_hidden_layers": LAYERS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,  # large enough for attention to matter
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def random_qwen3() -> PreTrainedModel:
    """Groups of 4 query heads over 2 kv heads."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, **heads)).eval()


def random_deepseek() -> PreTrainedModel:
    """MLA with 4 heads. SGLang's code for a CPU wants scaled positions, its Triton kernels one of a few sizes
    of latents."""
    torch.manual_seed(0)
    latent = {"kv_lora_rank": 256, "qk_rope_head_dim": 32, "qk_nope_head_dim": 16, "v_head_dim": 16}
    experts = {
        "first_k_dense_replace": LAYERS,
        "moe_layer_freq": 1,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 32,
    }
    positions = {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 512,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    config = DeepseekV3Config(
        **SIZES,
        **latent,
        **experts,
        rope_parameters=positions,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=None,
    )
    return DeepseekV3ForCausalLM(config).eval()


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


def check(model: PreTrainedModel, prompt: list[int], answer: Answer, config: VortexConfig) -> None:
    """The engine's numbers are those of `hf` at every step, and one block more would have changed them."""
    expected = forced(model, prompt, answer.tokens, config)
    assert apart(answer.logprobs, expected) < TOLERANCE
    larger = config.model_copy(update={"topk_val": config.topk_val + 1})
    steps = (forced(model, prompt, answer.tokens, larger) - expected).abs().amax(1)
    assert steps[0] == 0  # from the prefill
    assert steps[1:].min() > 100 * TOLERANCE
