"""MLA in SGLang: short requests beside a long sparse one must answer as dense attention does.

`python -m benchmarks.sglang.mla`. The model has DeepSeek-V3's attention (latents of 512 + 64), four layers,
and random weights. In a step with a sparse row all rows go through Vortex's own MLA decode, the short ones
over all of their blocks: their logprobs are compared with those of SGLang's dense decode, token by token of
the same text.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from vortex.config import VortexConfig

GEOMETRY = {
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "moe_intermediate_size": 512,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 4,
    "moe_layer_freq": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
}
SHORT, LONG, NEW = (70, 200, 333), 4000, 32


def main(backend: str) -> None:
    """Print one JSON document: per short request the share of equal tokens and the largest difference of a
    logprob, before the first token that differs."""
    import sglang

    from vortex.engine.sgl.control import counters, deploy

    rng = random.Random(0)
    prompts = [[rng.randrange(10, 32000) for _ in range(n)] for n in (*SHORT, LONG)]
    config = VortexConfig(module_name="rope_aware_block_sparse_mla", topk_val=40, dense_crossover=False)
    with tempfile.TemporaryDirectory() as folder:
        _write_model(Path(folder))
        engine = sglang.Engine(
            model_path=folder,
            vortex=config,
            attention_backend=backend,
            skip_tokenizer_init=True,
            dtype="bfloat16",
            page_size=16,
            max_total_tokens=32768,
            disable_radix_cache=True,
            log_level="error",
        )
        sparse = _generate(engine, prompts)
        seen = counters(engine)
        deploy(engine, None)
        dense = _generate(engine, prompts)
        again = _generate(engine, prompts)
        backend = engine.get_server_info()["attention_backend"]
        engine.shutdown()
    rows = [_agreement(ours, theirs) for ours, theirs in zip(sparse, dense, strict=True)]
    noise = [_agreement(ours, theirs) for ours, theirs in zip(again, dense, strict=True)]
    document = {"backend": backend, "short": rows[:-1], "long": rows[-1], "dense against itself": noise}
    print(json.dumps(document | {"counters": seen.model_dump()}, indent=1))
    if not seen.sparse_steps:
        raise SystemExit("no step was sparse: nothing of the sparse path was compared")


def _write_model(folder: Path) -> None:
    """Weights whose attention is far from uniform: those that SGLang makes up are too small to tell."""
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**GEOMETRY))
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=(2.0 if "q_proj" in name else 1.0) * weight.shape[1] ** -0.5)
    model.to(torch.bfloat16).save_pretrained(folder)


def _generate(engine: Any, prompts: list[list[int]]) -> list[list[tuple[float, int]]]:
    """(logprob, token) of each new token."""
    sampling = {"temperature": 0, "max_new_tokens": NEW, "ignore_eos": True}
    found = engine.generate(input_ids=prompts, sampling_params=sampling, return_logprob=True)
    return [[(p[0], p[1]) for p in answer["meta_info"]["output_token_logprobs"]] for answer in found]


def _agreement(ours: list[tuple[float, int]], theirs: list[tuple[float, int]]) -> dict[str, float]:
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a[1] != b[1]), len(ours))
    differences = [abs(a[0] - b[0]) for a, b in zip(ours[:same], theirs[:same], strict=True)]
    return {"tokens": len(ours), "equal": same, "logprob": max(differences, default=0.0)}


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["trtllm_mla"])
