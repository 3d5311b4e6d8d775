from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from evaluators.measure.dense_kernels import DENSE_KERNELS, DenseKernel
from evaluators.measure.kv import synthetic_cache
from evaluators.measure.speed import Spread, measure_speed, other_cores_busy
from evaluators.measure.workload import Workload
from vortex.config import VortexConfig
from vortex.engine.hf.geometry import ModelShape
from vortex.engine.hf.latent import LatentShape
from vortex.flow import build_vflow, trace_flow
from vortex.runtime.pool import PAGE

SHAPE = ModelShape(layers=2, heads=2, group=4, head_dim=64, context=1 << 20)
MLA = ModelShape(layers=2, heads=1, group=8, head_dim=48, context=1 << 20, latent=LatentShape(32, 16, 24, 20))


def test_a_contender_is_timed_beside_dense(workload: Workload) -> None:
    graph = trace_flow(build_vflow("block_sparse_attention"))
    config = VortexConfig.model_validate({"block_size": 32, "topk_val": 8})
    report = measure_speed(graph, config, workload, repeats=12, long=4096)
    prompts, long = report.columns
    assert (prompts.kv, prompts.accuracy_measured) == ("prompts", True)
    assert (long.kv, long.accuracy_measured, long.length) == ("synthetic", False, 4096)
    for column in report.columns:
        assert column.dense_kernel in [kernel.name for kernel in DENSE_KERNELS]
        for spread in (column.sparse_ms, column.dense_ms, column.ratio):
            assert 0 < spread.low <= spread.median <= spread.high
    assert report.threads == torch.get_num_threads()


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("kind", DENSE_KERNELS)
@pytest.mark.parametrize(("shape", "features"), [(SHAPE, 64), (MLA, 24 + 16)], ids=["gqa", "mla"])
def test_the_dense_kernels_attend_to_everything(
    kind: type[DenseKernel], shape: ModelShape, features: int
) -> None:
    """Against attention written out: a baseline that computes less would be no baseline."""
    cache = synthetic_cache(shape, length=300, batch=2, seed=1)
    kernel = kind(cache, shape)
    kernel(np.array([301, 280]))
    for request, length in enumerate((301, 280)):
        rows = cache.pages.pages.reshape(2, shape.heads, -1)[request]
        k, v = (x[rows].flatten(1, 2)[:, :length] for x in cache.pools[-1].blocks(PAGE))
        logits = torch.einsum("hgd,htd->hgt", kernel.q[request], k) / features**0.5
        expected = torch.einsum("hgt,htd->hgd", torch.softmax(logits, -1), v)
        torch.testing.assert_close(kernel.out[request], expected)


@pytest.mark.parametrize("shape", [SHAPE, MLA], ids=["gqa", "mla"])
def test_synthetic_pools_have_the_models_geometry(shape: ModelShape) -> None:
    cache = synthetic_cache(shape, length=1000, batch=3, seed=0)
    assert len(cache.pools) == shape.layers
    assert cache.pages.rows == 3 * shape.heads
    geometry = cache.pools[0].geometry(16, shape.group)
    assert (geometry.kind, geometry.head_dim, geometry.group) == (shape.kind, shape.head_dim, shape.group)
    assert (cache.pages.counts * 128 >= 1000 + cache.room).all()
    assert not torch.equal(cache.pools[0].k, cache.pools[1].k)


def test_spread() -> None:
    spread = Spread.of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert spread.median == 3.0
    assert 1.0 < spread.low < spread.high < 100.0
    assert 0.0 <= other_cores_busy(0.05) <= 1024
