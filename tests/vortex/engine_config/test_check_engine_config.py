"""The preflight of an engine's configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vortex.check.sources import GOOD, ILL_TYPED, ONLY_128, SAVING
from vortex.check.check import check
from vortex.config import UNSUPPORTED
from vortex.engine.sgl.check_engine_config import (
    EngineReport,
    check_engine_config,
    inspect_engine_config,
)
from vortex.engine.sgl.model_shape import read_shape
from vortex.errors import ConfigError
from vortex.flow import trace_source
from vortex.flow.verify import GRAPH_ONLY, GROUPS, HEAD_DIMS
from vortex.graph import Geometry

QWEN = {
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 1024,
    "max_position_embeddings": 40960,
}
DEEPSEEK = {
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "hidden_size": 2048,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
}
RIGHT: dict[str, Any] = {
    "model_path": "qwen",
    "page_size": 64,
    "tp_size": 2,
    "kv_cache_dtype": "auto",
    "mem_fraction_static": 0.8,
    "attention_backend": "fa3",
    "disable_radix_cache": False,
    "vortex_module_path": "good.py",
    "vortex_module_name": "mean_centroid",
    "vortex_block_size": 16,
    "vortex_layers_skip": [0, 1],
    "vortex_topk_val": 16,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models as far as their shape goes, and flow files."""
    for name, shape in (("qwen", QWEN), ("deepseek", DEEPSEEK)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(shape))
    for name, source in (("good", GOOD), ("saving", SAVING), ("ill", ILL_TYPED), ("only", ONLY_128)):
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    """RIGHT with changes; None removes a key."""
    path = folder / "engine.json"
    values = {name: value for name, value in {**RIGHT, **changes}.items() if value is not None}
    path.write_text(json.dumps(values))
    return path


def test_a_right_one(folder: Path) -> None:
    report = check_engine_config(write(folder), targets=GRAPH_ONLY)
    assert (report.errors, report.warnings) == ((), ())
    assert report.config is not None
    assert report.config.layers_skip == (0, 1)
    assert report.sweep is not None
    assert [attempt.geometry for attempt in report.sweep.compiled] == [Geometry(16, 128, 2)]
    assert set(report.engine) == {name for name in RIGHT if not name.startswith("vortex_")}


def test_targets_build_their_programs(folder: Path) -> None:
    report = check_engine_config(write(folder))
    assert report.sweep is not None
    assert {"reference", "torch"} <= {attempt.target for attempt in report.sweep.compiled}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"vortex_topk_val": 0}, "vortex_topk_val", "greater than or equal to 1"),
    ({"vortex_topk_val": 2.5}, "vortex_topk_val", "integer"),
    ({"vortex_topk_ratio": 1.5}, "vortex_topk_ratio", "less than or equal to 1"),
    ({"vortex_max_topk_val": 8}, "", "max_topk_val=8 is below topk_val=16"),
    ({"vortex_layers_skip": [-1]}, "vortex_layers_skip", "start at 0"),
    ({"vortex_layers_skip": [28]}, "vortex_layers_skip", "layers 0 to 27"),
    ({"vortex_block_reserved_bos": 0}, "vortex_block_reserved_bos", "1"),
    ({"vortex_block_reserved_eos": 0}, "vortex_block_reserved_eos", "1"),
    ({"vortex_max_seq_lens": 0}, "vortex_max_seq_lens", "at least 1"),
    ({"vortex_max_seq_lens": 50_000}, "vortex_max_seq_lens", "context is 40960"),
    ({"vortex_block_size": 24}, "vortex_block_size", "must be a positive power of 2"),
    ({"vortex_block_size": -16}, "vortex_block_size", "must be a positive power of 2"),
    ({"vortex_block_size": 128}, "vortex_block_size", "must divide page_size=64"),
    ({"vortex_block_size": None, "page_size": 48}, "page_size", "must be a positive power of 2"),
    ({"vortex_block_size": None, "page_size": None}, "page_size", "a block needs a size"),
    ({"vortex_workload_chunk_size": 33}, "vortex_workload_chunk_size", "must be a positive power of 2"),
    ({"vortex_dtype": "int8"}, "vortex_dtype", "'bfloat16'"),
    ({"vortex_schedule_policy": " "}, "vortex_schedule_policy", "empty"),
    ({"vortex_attention_backend": "fa3"}, "vortex_attention_backend", "'flashinfer' or 'trtllm'"),
    ({"vortex_impl_backend": "cutlass"}, "vortex_impl_backend", "'triton' or 'cuda'"),
    ({"vortex_use_tensor_core": True, "vortex_impl_backend": "cuda"}, "", "needs impl_backend='triton'"),
    ({"vortex_topk": 3}, "vortex_topk", "did you mean 'vortex_topk_val'?"),
    *[({f"vortex_{name}": 8}, f"vortex_{name}", "is not supported") for name in UNSUPPORTED],
    ({"vortex_module_name": None, "vortex_module_path": None}, "vortex_module_name", "is missing"),
    ({"vortex_module_name": None}, "", "module_path needs module_name"),
    ({"vortex_module_name": "mean_centroids"}, "vortex_module_name", "did you mean 'mean_centroid'?"),
    (
        {"vortex_module_path": None, "vortex_module_name": "gqa_quest_sparse"},
        "vortex_module_name",
        "did you mean 'gqa_quest_sparse_attention'?",
    ),
    ({"vortex_module_path": "nothing.py"}, "vortex_module_name", "cannot read the flow file"),
    ({"vortex_module_path": "ill.py"}, "vortex_module_name", "topK, line 24: needs one score per block"),
    (
        {"vortex_module_path": "saving.py", "vortex_module_name": "remembers"},
        "disable_radix_cache",
        "must be true: Save (line 23) writes 'seen'",
    ),
    ({"model_path": "deepseek"}, "vortex_module_name", "the model needs a vFlowMLA (latent)"),
    (
        {"vortex_module_path": None, "vortex_module_name": "quest_mla"},
        "vortex_module_name",
        "the model needs a vFlow (k and v)",
    ),
    ({"attention_backend": "trtllm_mla"}, "attention_backend", "is for a vFlowMLA"),
    ({"attention_backend": "flashinfr"}, "attention_backend", "did you mean 'flashinfer'?"),
    ({"kv_cache_dtype": "fp16"}, "kv_cache_dtype", "known: auto, bf16"),
    ({"mem_fraction_static": 1.2}, "mem_fraction_static", "between 0 and 1"),
    ({"page_size": 0}, "page_size", "at least 1"),
    ({"page_size": 1}, "page_size", "is 1: a block lies within a page"),
    ({"page_size": 1, "vortex_block_size": None}, "page_size", "is 1: a block lies within a page"),
    ({"page_size": None, "vortex_block_size": 1}, "page_size", "is 1: a block lies within a page"),
    ({"page_size": 8}, "vortex_block_size", "must divide page_size=8"),
    ({"tp_size": "2"}, "tp_size", "at least 1"),
    ({"tp_size": 3}, "tp_size", "cannot be split over 3 ranks"),
    ({"disable_radix_cache": "true"}, "disable_radix_cache", "true or false"),
    ({"decode_attention_backend": "aiter"}, "decode_attention_backend", "unknown attention backend 'aiter'"),
    ({"model_path": 3}, "model_path", "must be a path"),
    ({"enable_vortex_sparsity": 1}, "enable_vortex_sparsity", "true or false"),
]


@pytest.mark.parametrize(("changes", "key", "part"), WRONG)
def test_wrong_ones(folder: Path, changes: dict[str, Any], key: str, part: str) -> None:
    path = write(folder, **changes)
    errors = inspect_engine_config(path, targets=GRAPH_ONLY).errors
    assert [error.key for error in errors if part in error.message] == [key], errors
    assert {error.key for error in errors} <= {key, *changes}  # and nothing else is blamed
    with pytest.raises(ConfigError) as caught:
        check_engine_config(path, targets=GRAPH_ONLY)
    assert part in str(caught.value)


def test_everything_wrong_is_listed_at_once(folder: Path) -> None:
    path = write(folder, vortex_topk_val=0, vortex_blocksize=16, mem_fraction_static=3, kv_cache_dtype="x")
    keys = {error.key for error in inspect_engine_config(path).errors}
    assert keys == {"vortex_topk_val", "vortex_blocksize", "mem_fraction_static", "kv_cache_dtype"}


def test_saving_flows_with_the_prefix_cache_off(folder: Path) -> None:
    path = write(
        folder, vortex_module_path="saving.py", vortex_module_name="remembers", disable_radix_cache=True
    )
    assert check_engine_config(path, targets=GRAPH_ONLY).errors == ()


def test_the_published_mla_launch(folder: Path) -> None:
    path = write(
        folder,
        model_path="deepseek",
        attention_backend="trtllm_mla",
        vortex_module_path=None,
        vortex_module_name="rope_aware_block_sparse_mla",
    )
    report = check_engine_config(path, targets=GRAPH_ONLY)
    assert [warning.key for warning in report.warnings] == ["attention_backend"]
    assert "Vortex's own MLA decode" in report.warnings[0].message
    assert report.sweep is not None
    assert [attempt.geometry for attempt in report.sweep.compiled] == [Geometry.mla(16, 512, 64, 8)]


def test_a_model_that_is_not_here_means_a_sweep(folder: Path) -> None:
    report = check_engine_config(write(folder, model_path="Qwen/Qwen3-8B"), targets=GRAPH_ONLY)
    assert [warning.key for warning in report.warnings] == ["model_path"]
    assert report.sweep is not None
    assert len(report.sweep.compiled) == len(HEAD_DIMS) * len(GROUPS)
    partly = check_engine_config(
        write(folder, model_path="x", vortex_module_path="only.py"), targets=GRAPH_ONLY
    )
    assert "does not compile for 18 of 24 combinations" in partly.warnings[-1].message


def test_the_model_as_sglang_is_told_to_change_it(folder: Path) -> None:
    longer = {"vortex_max_seq_lens": 1 << 20}
    (error,) = inspect_engine_config(write(folder, **longer), targets=GRAPH_ONLY).errors
    assert error.key == "vortex_max_seq_lens"
    changes = json.dumps({"max_position_embeddings": 1 << 20})
    file = write(folder, **longer, json_model_override_args=changes)
    assert inspect_engine_config(file, targets=GRAPH_ONLY).errors == ()
    for wrong in ("{", "[1]"):
        file = write(folder, json_model_override_args=wrong)
        (error,) = inspect_engine_config(file, targets=GRAPH_ONLY).errors
        assert error.key == "json_model_override_args"


def test_a_shape_that_the_flow_does_not_serve(folder: Path) -> None:
    (folder / "qwen" / "config.json").write_text(json.dumps({**QWEN, "head_dim": 64}))
    path = write(folder, vortex_module_path="only.py")
    (error,) = inspect_engine_config(path, targets=GRAPH_ONLY).errors
    assert "does not compile for any shape" in error.message


@pytest.mark.parametrize("name", ["a\0b", "~nobody-of-this-name/x"])
def test_a_folder_that_cannot_be(folder: Path, name: str) -> None:
    path = write(folder, vortex_compilation_cache_dir=name)
    (error,) = inspect_engine_config(path, targets=GRAPH_ONLY).errors
    assert error.key == "vortex_compilation_cache_dir"
    assert repr(name) in error.message


def test_policies(folder: Path) -> None:
    def judged(text: str) -> EngineReport:
        path = write(folder, vortex_schedule_policy=text, vortex_compilation_cache_dir=str(folder / "cache"))
        return inspect_engine_config(path, targets=GRAPH_ONLY)

    assert (judged("return cached_block_len / 8;").errors, (folder / "cache").exists()) == ((), False)
    report = judged("int s = 0; for (int i = 0; i < 4; ++i) s += i; return s;")
    assert (report.errors, report.warnings) == ((), ())
    assert len(list((folder / "cache" / "policies").iterdir())) == 1
    (error,) = judged("return 1;\nreturn no_such_name;").errors
    assert error.key == "vortex_schedule_policy"
    assert error.message.startswith("row 2, column ")
    assert "does not compile it" in error.message
    assert "no_such_name" in error.message


def test_a_graph_is_a_flow_too(folder: Path) -> None:
    graph = trace_source(GOOD)
    (folder / "graph.json").write_text(graph.to_json())
    path = write(folder, vortex_module_path="graph.json", vortex_module_name="found")
    report = check_engine_config(path)
    assert report.sweep is not None
    assert {attempt.geometry for attempt in report.sweep.compiled} == {Geometry(16, 128, 2)}
    checked = check(path)
    assert checked.ok
    assert [(flow.name, flow.hash) for flow in checked.flows] == [("found", graph.hash)]
    assert checked.flows[0].cost is not None
    for text in ("{}", "["):
        (folder / "graph.json").write_text(text)
        (error,) = inspect_engine_config(path).errors
        assert (error.key, "graph.json: " in error.message) == ("vortex_module_name", True), error
        assert not check(path).ok
    (folder / "graph.json").unlink()
    (error,) = inspect_engine_config(path).errors
    assert "cannot read the graph" in error.message
    assert not check(path).ok


def test_a_graph_that_saves(folder: Path) -> None:
    (folder / "graph.json").write_text(trace_source(SAVING).to_json())
    path = write(folder, vortex_module_path="graph.json", enable_mixed_chunk=True)
    errors = inspect_engine_config(path, targets=GRAPH_ONLY).errors
    assert [error.key for error in errors] == ["disable_radix_cache", "enable_mixed_chunk"]


def test_a_dense_engine_is_said_to_be_one(folder: Path) -> None:
    path = write(folder, enable_vortex_sparsity=False)
    report = check_engine_config(path)
    assert report.config is None
    assert "the engine is dense" in report.warnings[0].message
    path.write_text('{"model_path": "qwen"}')
    (error,) = inspect_engine_config(path).errors
    assert "names no setting of Vortex" in error.message


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    for text in ("[1]", "{", ""):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"engine\.json"):
            check_engine_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        check_engine_config(tmp_path / "nothing.json")


def test_the_command_line(folder: Path) -> None:
    def run(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vortex.engine.sgl.check_engine_config", str(path), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(write(folder), "--graph-only")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("ok\n")
    done = run(write(folder, vortex_block_size=24), "--graph-only", "--json")
    assert done.returncode == 1
    (error,) = json.loads(done.stdout)["config"]["errors"]
    assert error == {"key": "vortex_block_size", "message": "must be a positive power of 2, got 24"}
    (folder / "engine.json").write_text("[]")
    done = run(folder / "engine.json")
    assert (done.returncode, done.stdout, "JSON object" in done.stderr) == (2, "", True)


def test_the_shape_of_a_model(folder: Path) -> None:
    shape = read_shape(folder / "qwen")
    assert shape is not None
    assert (shape.kind, shape.geometry(16), shape.geometry(32, 16)) == (
        "gqa",
        Geometry(16, 128, 2),
        Geometry(32, 128, 1),
    )
    nested = {"text_config": {name: value for name, value in QWEN.items() if name != "head_dim"}}
    (folder / "qwen" / "config.json").write_text(json.dumps(nested))
    shape = read_shape(folder / "qwen")
    assert shape is not None
    assert shape.head_dim == 64
    assert read_shape(folder / "nothing") is None
    for text in ("{}", "[]", "{"):
        (folder / "qwen" / "config.json").write_text(text)
        with pytest.raises(ConfigError, match="does not describe a decoder"):
            read_shape(folder / "qwen")
