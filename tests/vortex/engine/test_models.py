"""The models that the engine decodes: head layouts, positions, and every MLA architecture of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from tests.vortex.engine.conftest import (
    COMMON,
    EXPERTS,
    LATENT,
    NEW,
    Flows,
    flows_for,
    greedy,
    is_mla,
    padded_greedy,
)
from vortex.config import VortexConfig
from vortex.engine.hf import Engine, VortexCache
from vortex.errors import ConfigError

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 128,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}

MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "llama, one query head a kv head": (
        "LlamaForCausalLM",
        {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 20},
    ),
    "llama, one kv head, llama3 positions": (
        "LlamaForCausalLM",
        {"num_attention_heads": 4, "num_key_value_heads": 1, "rope_parameters": LLAMA3},
    ),
    "llama, yarn positions": (
        "LlamaForCausalLM",
        {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": YARN},
    ),
    "llama, linear positions, biases": (
        "LlamaForCausalLM",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": LINEAR,
            "attention_bias": True,
        },
    ),
    "mistral within its window": (
        "MistralForCausalLM",
        {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 300},
    ),
    "deepseek_v3, full query, yarn positions": (
        "DeepseekV3ForCausalLM",
        {**LATENT, **EXPERTS, "q_lora_rank": None, "rope_parameters": YARN, "rope_interleave": False},
    ),
    "deepseek_v2": ("DeepseekV2ForCausalLM", {**LATENT, **EXPERTS}),
    "deepseek_v2, full query projection": (
        "DeepseekV2ForCausalLM",
        {**LATENT, **EXPERTS, "q_lora_rank": None},
    ),
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", {**LATENT, **EXPERTS}),
    "youtu": ("YoutuForCausalLM", {**LATENT}),
    "mistral4": ("Mistral4ForCausalLM", {**LATENT, **EXPERTS}),
    "longcat_flash, two attentions a layer, scaled latents": (
        "LongcatFlashForCausalLM",
        {**LATENT, "num_layers": 2, "n_routed_experts": 8, "moe_topk": 2, "head_dim": 16},
    ),
    "minicpm3": ("MiniCPM3ForCausalLM", {**LATENT, "initializer_range": 0.2}),
    "axk1": ("AXK1ForCausalLM", {**LATENT, **EXPERTS}),
}


def tiny(name: str, **settings: object) -> PreTrainedModel:
    torch.manual_seed(0)
    model: type[PreTrainedModel] = getattr(transformers, name)
    return model(model.config_class(**{**COMMON, **settings})).eval()


@pytest.fixture(params=[case for case, (name, _) in MODELS.items() if hasattr(transformers, name)])
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    name, settings = MODELS[request.param]
    return tiny(name, **settings)


def test_full_budget_is_dense_and_targets_agree(any_model: PreTrainedModel, prompts: list[list[int]]) -> None:
    flows: Flows = flows_for(is_mla(any_model))
    dense = greedy(any_model, prompts)
    nearly = VortexConfig(topk_val=1, topk_ratio=1.0, block_size=8)
    sparse = VortexConfig(topk_val=2, block_size=8)
    assert Engine(any_model, None).generate(prompts, NEW) == dense
    assert Engine(any_model, flows.quest, nearly).generate(prompts, NEW) == dense
    found = Engine(any_model, flows.quest, sparse).generate(prompts, NEW)
    assert found == Engine(any_model, flows.quest, sparse, target="reference").generate(prompts, NEW)
    assert found == padded_greedy(any_model, prompts, VortexCache(any_model, flows.quest, sparse))
    assert found != dense


def test_a_window_ends_what_full_attention_serves(prompts: list[list[int]]) -> None:
    model = tiny("MistralForCausalLM", num_attention_heads=4, num_key_value_heads=2, sliding_window=205)
    flow = flows_for(is_mla(model)).centroid
    with pytest.raises(ConfigError, match="272 tokens exceeds the limit of 205"):
        Engine(model, flow).generate(prompts, NEW)
    with pytest.raises(ConfigError, match="206 tokens exceeds the limit of 205"):
        padded_greedy(model, prompts[:1], VortexCache(model, flow))


def test_attention_that_is_not_ours_is_refused() -> None:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    sliding = tiny("Qwen3ForCausalLM", **heads, layer_types=["full_attention"] * 2 + ["sliding_attention"])
    with pytest.raises(ConfigError, match="Qwen3ForCausalLM has sliding_attention"):
        Engine(sliding, None)
    indexed = tiny("DeepseekV32ForCausalLM", **LATENT, **EXPERTS)
    with pytest.raises(ConfigError, match="only full attention layers"):
        Engine(indexed, None)
    adapted = tiny("DeepseekV3ForCausalLM", **LATENT, **EXPERTS)
    attention = adapted.model.layers[1].self_attn
    attention.kv_b_proj = torch.nn.Sequential(attention.kv_b_proj)
    with pytest.raises(ConfigError, match="only a linear layer without bias"):
        VortexCache(adapted, None)
    del attention.kv_b_proj
    with pytest.raises(ConfigError, match="2 modules with kv_a_layernorm and kv_b_proj for 3 layers"):
        VortexCache(adapted, None)


FITTED = """
from vortex_torch.flow import register, vFlow
from vortex_torch.indexer import GeMM, LearnedQuery, topK
from vortex_torch.cache import Mean

@register("fitted")
class Fitted(vFlow):
    def __init__(self):
        super().__init__()
        eye = [[float(i == j) for j in range(16)] for i in range(16)]
        self.query, self.dot, self.top = LearnedQuery(Wk=[[eye] * 4]), GeMM(), topK()
        self.centroid = Mean(dim=1)

    def create_cache(self, block_size, head_dim):
        assert head_dim == 16
        return {"c": (1, head_dim)}

    def forward_cache(self, cache, loc, ctx):
        self.centroid(cache["k"], cache["c"], loc=loc, ctx=ctx)

    def forward_indexer(self, q, o, cache, ctx):
        self.top(self.dot(self.query(q, ctx=ctx), cache["c"], ctx=ctx), o, ctx=ctx)
"""


def test_a_flow_file_is_traced_at_the_sizes_of_the_model(tmp_path: Path) -> None:
    """Its weights and asserts fit this model and no other."""
    (tmp_path / "fitted.py").write_text(FITTED)
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**COMMON, **sizes)).eval()
    config = VortexConfig(topk_val=1000, block_size=8)
    prompt = [[int(token) for token in torch.randint(2, 400, (70,))]]
    sparse = Engine(model, tmp_path / "fitted.py", config).generate(prompt, max_new_tokens=4)
    assert sparse == Engine(model, None, config).generate(prompt, max_new_tokens=4)
    with pytest.raises(ConfigError, match="vFlowMLA"):
        Engine(model, "quest_mla", config)
