"""A new candidate: from its graph to the end of its first decode step.

`python -m benchmarks.kernels.cold FOLDER MODEL FLOW...` decodes once with another flow, as a worker that
has measured candidates before has, and prints the milliseconds of each flow as JSON. Kernels are kept in
FOLDER: empty, they are compiled; the next process finds them there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.kernels.results import ColdRow, Results

WARM = {"Qwen3-8B": "gqa_block_sparse_attention", "GLM-4.7-Flash": "lserve_centroid_mla"}
NEW = {
    "Qwen3-8B": ("block_sparse_attention", "gqa_quest_sparse_attention", "running_avg_block_sparse"),
    "GLM-4.7-Flash": ("rope_aware_block_sparse_mla", "quest_mla"),
}
POLICY = "return max(topk_val, cached_block_len / 32) + block_reserved_bos + block_reserved_eos;"


def cold(results: Results) -> None:
    """Each model's flows, in a folder of their own, in two processes one after the other."""
    for model, flows in NEW.items():
        with tempfile.TemporaryDirectory() as folder:
            times = [_process(folder, model, flows) for _ in range(2)]
        for flow in times[0]:
            new, kept = (run[flow] for run in times)
            results.cold.append(ColdRow(flow=flow, model=model, cold_ms=new, cached_ms=kept))
            print(results.cold[-1], flush=True)


def _process(folder: str, model: str, flows: tuple[str, ...]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.kernels.cold", folder, model, *flows]
    environment = {**os.environ, "TRITON_CACHE_DIR": f"{folder}/triton"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _first_steps(folder: Path, name: str, flows: list[str]) -> dict[str, float]:
    import torch

    from benchmarks.kernels.cases import GLM_47_FLASH, QWEN3_8B, Case, Store, config_of, page_table, queries
    from benchmarks.kernels.layer import SparseLayers

    model = next(model for model in (QWEN3_8B, GLM_47_FLASH) if model.name == name)
    case = Case(model, 8192, 4)
    pools, table, q = Store(model, case.tokens).pools(case, 1), page_table(case), queries(case, 1)
    out = q[0].new_empty((*q[0].shape[:2], pools[0].value_dim))
    kept = {"compilation_cache_dir": str(folder)}

    def first(flow: str, **knobs: object) -> float:
        config = config_of(flow, model).model_copy(update={**kept, **knobs})
        graph = config.load_graph(model.geometry)
        torch.cuda.synchronize()
        start = time.perf_counter()
        sparse = SparseLayers(case, config, graph, pools, table)
        sparse.works(q, out)[0]()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    first(WARM[name])
    times = {flow: first(flow) for flow in flows}
    return {**times, f"{flows[0]}, another policy": first(flows[0], schedule_policy=POLICY)}


if __name__ == "__main__":
    print(json.dumps(_first_steps(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])))
