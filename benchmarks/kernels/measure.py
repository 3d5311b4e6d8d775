"""The sections of the benchmark: each fills its part of the results; what fails is written down there."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from benchmarks.kernels.cases import (
    FLOWS,
    GLM_47_FLASH,
    MLA_CASE,
    QWEN3_1_7B,
    QWEN3_8B,
    TENSOR_CORES,
    Case,
    Store,
    config_of,
    graph_of,
    main_cases,
    page_table,
    queries,
)
from benchmarks.kernels.cold import cold
from benchmarks.kernels.dense import TOLERANCE, Baseline, Layers, baselines, error
from benchmarks.kernels.layer import SparseLayers
from benchmarks.kernels.plan import plan
from benchmarks.kernels.results import DenseRow, Results, SparseRow
from benchmarks.kernels.stages import stage
from benchmarks.kernels.timing import by_kernel, eager, in_graph, launches, rotation
from benchmarks.kernels.topk import topk

WITH_TENSOR_CORES = ("gqa_quest_sparse_attention", "gqa_block_sparse_attention", "quest_mla")
"""Flows with a product for each query head, which is what tensor cores are for."""
STORE_TOKENS = 2 * 64 * 131072
"""Tokens of the store: two layers of the largest case, 69 GB of Qwen3-8B's keys and values."""


def layers(results: Results) -> None:
    """Centroid and Quest beside dense attention, every context and batch."""
    store = Store(QWEN3_8B, STORE_TOKENS)
    for case in main_cases():
        measure(results, store, case, FLOWS.values())


def latent(results: Results) -> None:
    """GLM-4.7-Flash's latents."""
    store = Store(GLM_47_FLASH, 16 * MLA_CASE.tokens)
    measure(results, store, MLA_CASE, ("rope_aware_block_sparse_mla", "quest_mla"))


def flows(results: Results) -> None:
    """Every flow that ships, on every model's geometry, at batch 16 and 32K. Llama-3.1-8B's attention has the
    sizes of Qwen3-8B's."""
    from vortex.flow import list_keys

    for model in (QWEN3_8B, QWEN3_1_7B, GLM_47_FLASH):
        case = Case(model, 32768, 16)
        names = [
            name
            for name in (*list_keys(), *(flow + TENSOR_CORES for flow in WITH_TENSOR_CORES))
            if kind(name.removesuffix(TENSOR_CORES)) == model.geometry.kind
            and not results.find(model.name, case.context, case.batch, name)
        ]
        measure(results, Store(model, 16 * case.tokens), case, names, dense=model is QWEN3_1_7B)


def kind(flow: str) -> str:
    """Which kind of cache a registered flow is for."""
    from vortex.flow import get
    from vortex.flow.base import vFlowMLA

    return "mla" if issubclass(get(flow), vFlowMLA) else "gqa"


def measure(results: Results, store: Store, case: Case, names: Iterable[str], dense: bool = True) -> None:
    """The dense kernels of a case, then flows."""
    table = page_table(case)
    if dense:
        measure_dense(results, store, case, table)
    for name in names:
        attempt(results, f"{name} {case.label}", partial(measure_flow, results, store, case, table, name))
    gc.collect()
    torch.cuda.empty_cache()


def attempt(results: Results, what: str, work: Callable[[], None]) -> None:
    """Errors become part of the results."""
    try:
        work()
    except Exception as failure:
        results.failed[what] = f"{type(failure).__name__}: {failure}"[:600]
        traceback.print_exc()
        print(f"FAILED {what}: {failure}", flush=True)


def measure_dense(results: Results, store: Store, case: Case, table: torch.Tensor) -> None:
    count = rotation(case.dense_bytes, store.room(case))
    on = Layers(case, store.pools(case, count), table, queries(case, count))
    for baseline in baselines(case):
        attempt(results, f"{baseline.name} {case.label}", partial(measure_baseline, results, on, baseline))


def measure_baseline(results: Results, on: Layers, baseline: Baseline) -> None:
    case, works = on.case, baseline.plan(on)
    out = works[0]()
    assert isinstance(out, torch.Tensor)
    off = error(on, out)
    row = DenseRow(
        **named(case),
        name=baseline.name,
        fair=baseline.fair,
        timing=in_graph(works),
        eager=eager(works),
        floor_us=case.dense_bytes / results.copy_gb_s / 1e3,
        error=off,
    )
    if off > TOLERANCE:
        raise AssertionError(f"wrong by {off:.1e}")
    results.dense.append(row)
    print(f"{case.label} | {row.name} | {row.timing} us | eager {row.eager} | error {off:.1e}", flush=True)


def measure_flow(results: Results, store: Store, case: Case, table: torch.Tensor, flow: str) -> None:
    count = min(rotation(touched(case), store.room(case)), 32)
    pools, q = store.pools(case, count), queries(case, count)
    config = config_of(flow, case.model)
    sparse = SparseLayers(case, config, graph_of(config, case.model), pools, table)
    recall, off = sparse.check(q[0])
    if off > TOLERANCE:
        raise AssertionError(f"wrong by {off:.1e}")
    works = sparse.works(q, q[0].new_empty((*q[0].shape[:2], pools[0].value_dim)))
    kernels = by_kernel(works)
    floors = {part: size / results.copy_gb_s / 1e3 for part, size in sparse.floor_bytes.items()}
    row = SparseRow(
        **named(case),
        flow=flow,
        blocks=sparse.decode.step.size.chosen,
        layers=count,
        timing=in_graph(works),
        eager=eager(works),
        parts=stages(kernels),
        kernels=kernels,
        launches=launches(works),
        floors=floors,
        floor_us=sum(floors.values()),
        recall=recall,
        error=off,
    )
    results.sparse.append(row)
    parts = " ".join(f"{part} {us:.1f}" for part, us in row.parts.items())
    print(
        f"{case.label} | {flow} | {row.timing} us | {parts} | floor {row.floor_us:.1f} | "
        f"launches {row.launches:.1f} | eager {row.eager} | recall {recall:.4f} error {off:.1e}",
        flush=True,
    )


def touched(case: Case) -> float:
    """Bytes that the leanest flow reads of a layer: a summary of every block, and the chosen blocks."""
    model = case.model
    return case.dense_bytes / model.block_size / 2 + case.batch * 64 * model.block_size * model.token_bytes


def stages(kernels: dict[str, float]) -> dict[str, float]:
    """Microseconds by stage."""
    found: dict[str, float] = {}
    for name, us in kernels.items():
        found[stage(name)] = found.get(stage(name), 0.0) + us
    return found


def named(case: Case) -> dict[str, Any]:
    return {"model": case.model.name, "context": case.context, "batch": case.batch}


SECTIONS: dict[str, Callable[[Results], None]] = {
    "layers": layers,
    "latent": latent,
    "flows": flows,
    "topk": topk,
    "plan": plan,
    "cold": cold,
}
