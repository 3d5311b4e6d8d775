"""Generates with sparse attention, without a server:  python examples/offline.py MODEL"""

import sys

import sglang as sgl
from vortex_torch.engine.sgl.config import VortexConfig
from vortex_torch.engine.sgl.control import counters

if __name__ == "__main__":  # the processes that SGLang starts import this file
    engine = sgl.Engine(
        model_path=sys.argv[1],
        page_size=16,
        attention_backend="flashinfer",
        disable_overlap_schedule=True,
        mem_fraction_static=0.85,
        vortex=VortexConfig(module_name="gqa_quest_sparse_attention", topk_val=30, block_size=16),
    )
    prompt = "The grass is green. The sky is blue. " * 500 + "The grass is"
    print(engine.generate(prompt, {"temperature": 0, "max_new_tokens": 16})["text"])
    seen = counters(engine)
    print(f"{seen.sparse_steps} sparse steps read {seen.blocks_read} of {seen.blocks_total} blocks,")
    print(f"{seen.crossover_steps} more were dense, which is faster for few or short requests")
    engine.shutdown()
