from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.serving.dummy import GEOMETRIES, write_geometry
from evaluators.serving.engine import ServingOptions
from evaluators.serving.errors import ServingError
from evaluators.serving.timing import dense_options, model_facts, open_flow
from vortex.config import VortexConfig
from vortex.flow import load_graph
from vortex.graph.model import FlowGraph


def test_the_dense_engine_has_its_own_defaults() -> None:
    options = ServingOptions(extra={"disable_radix_cache": True, "max_running_requests": 16}, page_size=32)
    dense = dense_options(options, "fa3")
    assert dense == options.model_copy(
        update={"attention_backend": "fa3", "extra": {"max_running_requests": 16}}
    )
    started = dense.arguments(Path("model"), None)
    for name in ("vortex", "disable_overlap_schedule", "disable_radix_cache", "disable_cuda_graph"):
        assert name not in started


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries_are_models(name: str, tmp_path: Path) -> None:
    folder = write_geometry(name.upper(), tmp_path)
    facts = model_facts(folder, dummy=True, label=name)
    assert (facts.head_dim, facts.kv_heads) == (128, 8)
    assert facts.label == f"{name} (dummy weights)"
    config = json.loads((folder / "config.json").read_text())
    assert config["num_attention_heads"] == facts.heads


def test_an_unknown_geometry_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"qwen3-1\.7b"):
        write_geometry("qwen3-1.8b", tmp_path)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"no config\.json there"):
        model_facts(tmp_path, dummy=False)


def test_a_flow_is_a_name_a_file_or_a_graph(tmp_path: Path) -> None:
    model = write_geometry("qwen3-0.6b", tmp_path)
    options = ServingOptions(device="cpu")
    named = open_flow("gqa_quest_sparse_attention", VortexConfig(), model, options)
    path = tmp_path / "graph.json"
    path.write_text(named.graph)
    again = open_flow(str(path), VortexConfig(topk_val=7), model, options)
    assert (named.name, again.name) == ("gqa_quest_sparse_attention", "graph.json")
    assert FlowGraph.from_json(again.graph).hash == load_graph("gqa_quest_sparse_attention").hash
    assert again.config.topk_val == 7
