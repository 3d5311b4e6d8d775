"""Generates with sparse attention, without a server:  python examples/offline.py MODEL"""

import sys

import sglang as sgl
from vortex_torch.engine.sgl.config import VortexConfig

if __name__ == "__main__":  # SGLang starts processes that import this file
    engine = sgl.Engine(
        model_path=sys.argv[1],
        page_size=16,
        attention_backend="flashinfer",
        disable_overlap_schedule=True,
        mem_fraction_static=0.85,
        vortex=VortexConfig(module_name="gqa_quest_sparse_attention", topk_val=30, block_size=16),
    )
    prompt = "It rained. " * 1000 + "What was the weather like? It"
    print(engine.generate(prompt, {"temperature": 0, "max_new_tokens": 16})["text"])
    print(engine.get_server_info()["internal_states"][0]["vortex"])
    engine.shutdown()
