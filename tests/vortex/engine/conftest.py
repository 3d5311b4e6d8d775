"""Tiny random models, the tokens that plain transformers decodes with them, and flows for them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.vortex.targets.cases import centroid, keys_themselves, quest
from vortex.engine.hf import VortexCache
from vortex.engine.hf.attention import attention_implementation
from vortex.flow import load_graph
from vortex.graph import FlowGraph, Geometry, Ref, Stage
from vortex.graph.build import GraphBuilder

COMMON = {
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "vocab_size": 400,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
LATENT = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 20,
    "q_lora_rank": 40,
}
EXPERTS = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 32,
}
NEW = 12


@dataclass(frozen=True)
class Flows:
    """Block scores for a model's cache: by mean key, by Quest's bound, and by the keys themselves."""

    centroid: FlowGraph
    quest: FlowGraph
    keys: FlowGraph


@pytest.fixture(scope="session", params=["qwen3", "llama", "deepseek_v3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    if request.param == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**COMMON, **HEADS)).eval()
    if request.param == "llama":
        return LlamaForCausalLM(LlamaConfig(**COMMON, **HEADS)).eval()
    return DeepseekV3ForCausalLM(DeepseekV3Config(**COMMON, **LATENT, **EXPERTS)).eval()


@pytest.fixture(scope="session")
def flows(model: PreTrainedModel) -> Flows:
    return flows_for(is_mla(model))


def flows_for(mla: bool) -> Flows:
    if not mla:
        return Flows(centroid(), quest(), keys_themselves())
    build = GraphBuilder("mla", Geometry.mla(16, 512, 64, 16))
    score = build.add(Stage.INDEXER, "GeMM", {}, [Ref.query(), Ref.field("latent")])
    for dim in (1, 2):
        score = build.add(Stage.INDEXER, "Max", {"dim": dim}, [score])
    build.add(Stage.INDEXER, "topK", {}, [score])
    return Flows(load_graph("rope_aware_block_sparse_mla"), load_graph("quest_mla"), build.finish())


def is_mla(model: PreTrainedModel) -> bool:
    return getattr(model.config, "kv_lora_rank", None) is not None


def geometry(model: PreTrainedModel, block_size: int) -> Geometry:
    """What `HEADS` and `LATENT` mean for a graph."""
    return Geometry.mla(block_size, 32, 16, 4) if is_mla(model) else Geometry(block_size, 16, 4)


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Ragged: one token, a page less one token, a page, and more."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(2, 400, (n,), generator=generator).tolist() for n in (200, 1, 127, 128, 260, 5)]


@pytest.fixture(scope="session")
def dense(model: PreTrainedModel, prompts: list[list[int]]) -> list[list[int]]:
    return greedy(model, prompts)


def greedy(model: PreTrainedModel, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens of transformers alone, one prompt at a time."""
    tokens = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)
        tokens.append(out[0, len(prompt) :].tolist())
    return tokens


def padded_greedy(
    model: PreTrainedModel, prompts: list[list[int]], cache: VortexCache, new: int = NEW
) -> list[list[int]]:
    """Left-padded ragged batch through `model.generate`; what follows an end token is cut."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with attention_implementation(model, "vortex"):
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=new, do_sample=False, past_key_values=cache
        )
    rows = out[:, width:].tolist()
    return [row[: row.index(1) + 1] if 1 in row else row for row in rows]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "</s>": 1, **{f"w{i}": i for i in range(2, 400)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", eos_token="</s>", pad_token="[UNK]"
    )
