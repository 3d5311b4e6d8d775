"""Generated kernels compile for GPUs that are not there: those of the shipped flows without spilling
registers, and those of graphs that use every op."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.kernels.aot import ARCHITECTURES, check, compiled
from tests.kernels.geometries import MODELS, Model
from tests.kernels.launches import Launch
from tests.kernels.recorded import layer_launches
from tests.vortex.targets.census import covering
from tests.vortex.targets.generated import MLA_FLOWS, SHIPPED, Case, fixed_cases
from vortex.config import VortexConfig
from vortex.flow import load_graph
from vortex.kernels.triton_setup import interpreted

pytestmark = pytest.mark.skipif(not interpreted(), reason="launches are recorded under the interpreter")
SERVED = [
    pytest.param(name, marks=() if name in ("Qwen3-8B", "GLM-4.7-Flash") else pytest.mark.full)
    for name in MODELS
]
SAMPLE = list(covering(fixed_cases(400)))


def flows_of(model: Model) -> list[str]:
    return [name for name in SHIPPED if (name in MLA_FLOWS) == (model.latent is not None)]


def of_shipped_flows(model: Model, **settings: object) -> Iterator[Launch]:
    config = VortexConfig(
        **{"block_size": 32 if model.latent else 16, "topk_val": 61, "block_reserved_eos": 2, **settings}
    )
    for flow in flows_of(model):
        graph = load_graph(flow, geometry=model.geometry(config.block_size or 16))
        yield from layer_launches(graph, model, config)


def of_case(case: Case) -> list[Launch]:
    model = Model(case.group, case.heads, case.head_dim, case.latent)
    return layer_launches(case.graph, model, case.config, torch.bfloat16, 64 * case.block_size)


@pytest.mark.parametrize("name", SERVED)
def test_shipped_flows(name: str) -> None:
    check(compiled(of_shipped_flows(MODELS[name])))


@pytest.mark.parametrize("name", ["Qwen3-8B", "GLM-4.7-Flash"])
def test_kernels_of_a_step_write_after_they_have_waited(name: str) -> None:
    """What they overwrite may be read by the kernels before them."""
    launches = list(of_shipped_flows(MODELS[name]))
    following, leading = set(), set()
    for each in launches:
        kernel = Path(each.file).read_text().split(f"def {each.name}(")[1].split("@triton.jit")[0]
        name_of = f"{Path(each.file).name}:{each.name}"
        if "follow(EARLY)" in kernel:
            following.add(name_of)
        if "lead(EARLY)" in kernel:
            leading.add(name_of)
    waiting = [one for one in compiled(launches, (90,)) if "w" in one.steps]
    assert {one.name for one in waiting} == following | leading
    assert {one.name for one in waiting if one.starts_first} == leading
    assert {one.name.split(":")[1] for one in waiting} >= {"prologue", "blocks_1"}
    for one in waiting:
        assert one.steps.index("w") < one.steps.index("s"), one.name
    assert bool(leading) == (name == "GLM-4.7-Flash")


@pytest.mark.full
@pytest.mark.parametrize("name", ["Qwen3-8B", "GLM-4.7-Flash"])
def test_shipped_flows_for_geforce(name: str) -> None:
    check(compiled(of_shipped_flows(MODELS[name]), (120,)), local=True)


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"block_size": 128}, {"use_tensor_core": True}, {"dtype": "fp8_e4m3"}])
@pytest.mark.parametrize("name", ["Qwen3-8B", "GLM-4.7-Flash"])
def test_shipped_flows_with_other_settings(name: str, settings: dict[str, object]) -> None:
    check(compiled(of_shipped_flows(MODELS[name], **settings)))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.full) for part in (1, 2, 3))])
def test_graphs_with_every_op(part: int) -> None:
    """Whatever is well typed compiles; it may spill."""
    launches = [launch for case in SAMPLE[part::4] for launch in of_case(case)]
    check(compiled(launches, ARCHITECTURES[:1] if part == 0 else ARCHITECTURES), local=True)
