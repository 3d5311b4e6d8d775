"""The plan of a decode step: counts, work lists and the block table, once a step for all layers."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.kernels.cases import FLOWS, QWEN3_8B, config_of, graph_of
from benchmarks.kernels.results import PlanRow, Results
from benchmarks.kernels.timing import eager, in_graph, launches
from vortex.kernels.plan import Planner
from vortex.runtime.decode import step_size
from vortex.runtime.device import DeviceStep
from vortex.runtime.plan import make_plan

CONTEXT = 32768
BATCHES = (1, 16, 256, 1024)


def plan(results: Results) -> None:
    """Batches of requests of different lengths up to 32K, all of them sparse, with and without reading the
    engine's page table."""
    for batch in BATCHES:
        for table in (True, False):
            results.plan.append(_row(batch, table))
            print(results.plan[-1], flush=True)


def _row(batch: int, table: bool) -> PlanRow:
    model, device = QWEN3_8B, torch.device("cuda")
    config = config_of(FLOWS["centroid"], model).model_copy(update={"dense_crossover": False})
    size = step_size(
        graph_of(config, model),
        model.geometry,
        config,
        requests=batch,
        heads=model.heads,
        tokens=CONTEXT,
        share=model.heads,
        device=device,
    )
    planner, step = Planner(size, config, device), DeviceStep(size, device)
    random = np.random.default_rng(batch)
    lengths = random.integers(CONTEXT // 2, CONTEXT + 1, batch)
    seq_len = torch.from_numpy(lengths.astype(np.int32)).to(device)
    slots = None
    if table:
        pages = torch.from_numpy(random.permutation(batch * size.blocks).astype(np.int32)).to(device)
        offsets = torch.arange(model.block_size, dtype=torch.int32, device=device)
        slots = (pages[:, None] * model.block_size + offsets).view(batch, CONTEXT)

    def work() -> None:
        planner.run(step, seq_len, None, slots)

    work()
    expected = make_plan(lengths, model.block_size, config, None)
    assert (step.n.cpu().numpy() == expected.n).all(), "wrong numbers of blocks"
    assert (step.chosen.cpu().numpy() == expected.chosen).all(), "wrong numbers of chosen blocks"
    assert int(step.chunk_count) == expected.chunks(config), "wrong number of chunks"
    if table:
        used = torch.arange(size.blocks, device=device) < step.n[:, None]
        assert (step.table == pages.view(batch, -1))[used].all(), "wrong block table"
    return PlanRow(
        batch=batch,
        context=CONTEXT,
        table=table,
        timing=in_graph([work] * 16),
        eager=eager([work] * 16),
        launches=launches([work]),
    )
