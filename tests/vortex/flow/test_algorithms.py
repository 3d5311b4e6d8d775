"""Every flow that ships scores blocks as its formula says: written out here in numpy, without any op of the
language."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import vortex_torch.flow.algorithms as shipped
from safetensors.torch import save_file

from tests.vortex.flow.formulas import FORMULAS, RANK, ROPE, Array, Decode
from tests.vortex.targets.cases import GROUP, HEAD_DIM
from vortex.errors import FlowInitError, FlowTypeError, GuardError
from vortex.flow import FlowBase, build_vflow, get, list_keys, load_graph, trace_flow, trace_source
from vortex.graph import FlowGraph, Geometry
from vortex.graph.render import render_flow

SHIPPED = sorted(FORMULAS)


@pytest.mark.parametrize("block_size", [8, 16, 64])
@pytest.mark.parametrize("name", SHIPPED)
def test_scores_are_the_formula(name: str, block_size: int) -> None:
    Decode(load_graph(name), block_size, FORMULAS[name]).run(steps=3)


def test_there_is_a_formula_for_every_flow() -> None:
    flows = [name for name in list_keys() if get(name).__module__.startswith("vortex.flow.algorithms")]
    assert flows == SHIPPED


def test_every_flow_is_imported_by_its_class_and_built_by_its_name() -> None:
    classes = {cls for cls in vars(shipped).values() if isinstance(cls, type) and issubclass(cls, FlowBase)}
    assert classes == {get(name) for name in SHIPPED} == {getattr(shipped, name) for name in shipped.__all__}
    for name in SHIPPED:
        assert type(build_vflow(name)) is get(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_docstring_has_formula_and_source(name: str) -> None:
    text = inspect.getdoc(inspect.getmodule(get(name)))
    assert text is not None
    assert "score = " in text
    assert "arXiv 2" in text


@pytest.mark.parametrize("name", SHIPPED)
def test_one_trace_serves_all_sizes(name: str) -> None:
    graph = load_graph(name)
    assert graph.guards == ()
    for block_size in (8, 16, 32, 64, 128):
        for geometry in latents(block_size) if graph.kind == "mla" else heads(block_size):
            graph.instantiate(geometry)
        assert trace_flow(get(name), geometry=geometry).hash == graph.hash


def heads(block_size: int) -> list[Geometry]:
    return [Geometry(block_size, dim, group) for dim in (64, 128, 256) for group in (1, 2, 4, 7, 16)]


def latents(block_size: int) -> list[Geometry]:
    parts = ((512, 64), (128, 32))
    return [Geometry.mla(block_size, *part, group) for part in parts for group in (1, 2, 16, 20, 32)]


@pytest.mark.parametrize("name", SHIPPED)
def test_flow_files_round_trip(name: str) -> None:
    graph = load_graph(name)
    source = render_flow(graph, f"{name}_again")
    assert trace_source(source).hash == graph.hash
    assert FlowGraph.from_json(graph.to_json()) == graph


def learned(tmp_path: Path, layers: tuple[int, ...]) -> tuple[FlowGraph, dict[int, torch.Tensor]]:
    """The learned flow with a random map for some layers, and the maps `[latent, group * latent]`."""
    generator = torch.Generator().manual_seed(0)
    shape = (HEAD_DIM, GROUP * HEAD_DIM)
    maps = {layer: torch.randn(shape, generator=generator) for layer in layers}
    save_file({f"layers.{layer}.weight": w for layer, w in maps.items()}, tmp_path / "maps.safetensors")
    flow = build_vflow("learned_block_sparse_mla", {"weights": tmp_path / "maps.safetensors"})
    return trace_flow(flow, geometry=Geometry.mla(16, RANK, ROPE, GROUP)), maps


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_learned_maps_by_layer(tmp_path: Path, layer: int) -> None:
    graph, maps = learned(tmp_path, layers=(2, 0))
    formula = FORMULAS["learned_block_sparse_mla"]
    if layer in maps:
        w = maps[layer].double().numpy()

        def formula(q: Array, k: Array, v: Array, span: slice) -> Array:
            return k.mean(1) @ (w @ q.flatten())

    Decode(graph, 32, formula, layer).run()


def test_learned_maps_are_part_of_the_algorithm(tmp_path: Path) -> None:
    graph, _ = learned(tmp_path, layers=(0, 1))
    assert trace_source(render_flow(graph, "again"), geometry=graph.traced_at).hash == graph.hash
    assert graph.hash not in {load_graph("learned_block_sparse_mla").hash, learned(tmp_path, (0, 2))[0].hash}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layers.0.bias": (4, 8)}, r"layers\.0\.bias \(4 x 8\) is no map; name it layers\.<layer>\.weight"),
        ({"layers.0.weight": (4, 9)}, r"\(4 x 9\) is no map.*\[latent, H \* latent\]"),
        ({}, "has no tensors"),
    ],
)
def test_files_that_hold_no_maps(tmp_path: Path, tensors: dict[str, tuple[int, int]], message: str) -> None:
    file = tmp_path / "maps.safetensors"
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, file)
    with pytest.raises(FlowInitError, match=message):
        build_vflow("learned_block_sparse_mla", {"weights": file})


def test_a_learned_map_of_another_model(tmp_path: Path) -> None:
    learned(tmp_path, layers=(0,))
    flow = build_vflow("learned_block_sparse_mla", {"weights": tmp_path / "maps.safetensors"})
    with pytest.raises(FlowTypeError, match=f"for {GROUP} heads of {HEAD_DIM} features"):
        trace_flow(flow)


def test_the_flows_are_different_algorithms() -> None:
    assert len({load_graph(name).hash for name in SHIPPED}) == len(SHIPPED)


def test_sub_blocks_are_of_sixteen_tokens_and_a_smaller_block_is_one() -> None:
    flow = build_vflow("lserve_sparse_attention")
    for block_size, rows in ((4, 1), (8, 1), (16, 1), (32, 2), (128, 8)):
        flow.initialize(block_size, 64)
        assert flow.get_cache_meta_info()["max"][0] == (rows, 64)
    with pytest.raises(GuardError, match="not divisible"):
        load_graph("lserve_sparse_attention").instantiate(Geometry(40, 64, 4))
