"""`python -m benchmarks.kernels.crossover`: layers that run sparse and dense through the same kernels, and
the coefficients of `vortex/runtime/crossover.py` that fit them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from benchmarks.kernels.cases import (
    BOS,
    EOS,
    GLM_47_FLASH,
    QWEN3_8B,
    TOP_K,
    Case,
    Model,
    Store,
    config_of,
    graph_of,
    page_table,
    queries,
    random,
)  # fmt: skip
from benchmarks.kernels.layer import SparseLayers
from benchmarks.kernels.timing import capture, timed
from vortex.kernels.plan import Planner
from vortex.kernels.plan_count import Crossover
from vortex.runtime.crossover import Rates, layer_costs

FLOWS = {
    QWEN3_8B: ("block_sparse_attention", "gqa_quest_sparse_attention"),
    GLM_47_FLASH: ("rope_aware_block_sparse_mla", "quest_mla"),
}
CONTEXTS, BATCHES = (2048, 4096, 8192, 32768), (1, 4, 16, 64)
STORE_BYTES, MOST_LAYERS = 20e9, 40
ALWAYS_DENSE = Crossover(dense=0, dense_block=0, sparse=1, score_block=0, chosen_block=0)


@dataclass(frozen=True)
class Point:
    """Microseconds of a layer of a case, and what it takes: launches, bytes of the cache, of what is scored
    and of the blocks that are read."""

    case: Case
    flow: str
    sparse: float
    dense: float
    launches: int
    cached: float
    scored: float
    read: float


def measured(store: Store, case: Case, flow: str) -> Point:
    """Needs a GPU."""
    config = config_of(flow, case.model)
    graph, count = graph_of(config, case.model), min(MOST_LAYERS, store.room(case))
    made = SparseLayers(case, config, graph, store.pools(case, count), page_table(case))
    decode, sparse = made.decode, made.decode.planner
    value_dim = decode.value_dim
    out = random((case.batch, case.model.heads * case.model.group, value_dim), "cuda")
    replay = capture(made.works(queries(case, count), out)).replay
    found = []
    for planner in (sparse, Planner(decode.size, made.config, "cuda", crossover=ALWAYS_DENSE)):
        planner.run(decode.step, made.seq_len)
        found.append(timed(replay, count).us)
    # In bytes: rates of one byte a microsecond.
    bytes_ = layer_costs(graph, case.model.geometry, decode.size, 2, 2, decode.launches_per_layer, UNIT)
    n, read = case.blocks * case.batch, decode.size.chosen * case.batch
    scored = n - (decode.size.bos + decode.size.eos) * case.batch
    return Point(
        case,
        flow,
        sparse=found[0],
        dense=found[1],
        launches=decode.launches_per_layer,
        cached=bytes_.dense_block * n,
        scored=bytes_.score_block * scored,
        read=bytes_.chosen_block * read,
    )


UNIT = Rates(dense_us=0, dense=1, launch_us=1, score=1, read=1)


def fitted(points: Sequence[Point]) -> Rates:
    """The rates with the least relative errors."""

    def fit(times: list[float], columns: list[list[float]]) -> list[float]:
        weights = 1 / np.array(times)
        found = np.linalg.lstsq(np.array(columns).T * weights[:, None], np.ones(len(times)), rcond=None)[0]
        return [float(x) for x in found]

    base, dense = fit([p.dense for p in points], [[1.0] * len(points), [p.cached for p in points]])
    launch, score, read = fit(
        [p.sparse for p in points],
        [[float(p.launches) for p in points], [p.scored for p in points], [p.read for p in points]],
    )
    return Rates(base, 1 / dense, launch, 1 / score, 1 / read)


def lines(points: Sequence[Point], rates: Rates) -> list[str]:
    """The points beside what the rates say of them."""
    made = [f"{field.name} {getattr(rates, field.name):.3g}" for field in fields(rates)]
    for p in points:
        model = Crossover(
            dense=rates.dense_us,
            dense_block=1 / rates.dense,
            sparse=rates.launch_us * p.launches,
            score_block=1 / rates.score,
            chosen_block=1 / rates.read,
        )
        dense, sparse = model.times(p.cached, p.scored, p.read)  # of bytes, as if each were a block
        wrong = "" if (p.dense <= p.sparse) == (dense <= sparse) else " WRONG"
        made.append(
            f"{p.flow} {p.case.label}: dense {p.dense:.1f} (model {dense:.1f}), "
            f"sparse {p.sparse:.1f} (model {sparse:.1f}){wrong}"
        )
    return made


def points_of(model: Model) -> list[Point]:
    largest = Case(model, max(CONTEXTS), max(BATCHES)).tokens
    store = Store(model, max(2 * largest, int(STORE_BYTES // model.token_bytes)))
    cases = [Case(model, context, batch) for context in CONTEXTS for batch in BATCHES]
    cases = [case for case in cases if case.blocks > BOS + TOP_K + EOS]  # others are dense anyway
    return [measured(store, case, flow) for flow in FLOWS[model] for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.crossover", description=__doc__)
    parser.parse_args()
    import vortex.flow.algorithms  # noqa: F401

    for model in FLOWS:
        with torch.inference_mode():
            points = points_of(model)
        print(model.name, *lines(points, fitted(points)), sep="\n", flush=True)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
