"""What a check says of a flow file."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vortex.check.sources import GOOD, ILL_TYPED, ONLY_128, SAVING, TWO
from vortex.check import report as shapes
from vortex.check.check import Sizes, check
from vortex.config import VortexConfig
from vortex.errors import ConfigError, FlowLoadError, RegistryError
from vortex.flow import list_keys, trace_source
from vortex.graph import Geometry
from vortex.graph.cost import row_cost


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flow.py"
    path.write_text(GOOD)
    return path


def test_a_flow_in_words(file: Path) -> None:
    report = check(file)
    assert (report.ok, report.file, report.source, report.error, report.config) == (
        True,
        str(file),
        None,
        None,
        None,
    )
    (flow,) = report.flows
    assert (flow.name, flow.kind, flow.guards, flow.advice) == ("mean_centroid", "gqa", (), ())
    assert flow.hash == trace_source(GOOD).hash
    rows = [(op.number, op.stage, op.line, op.op, op.writes) for op in flow.ops]
    assert rows == [
        (1, "cache", 20, "Mean(dim=1)", "centroids"),
        (2, "indexer", 23, "Mean(dim=1)", None),
        (3, "indexer", 23, "GeMM()", None),
        (4, "indexer", 24, "topK()", None),
    ]
    score = flow.ops[2]
    assert [(value.name, value.shape) for value in score.operands] == [
        ("#2", "[1, 1, head_dim]"),
        ("centroids", "[S, 1, head_dim]"),
    ]
    assert score.result == shapes.Value("#3", "[S, 1, 1]")
    assert flow.ops[3].result is None
    assert [(f.name, f.shape, f.per, f.bytes) for f in flow.fields] == [
        ("centroids", "[1, head_dim]", "block", 256)
    ]


def test_the_price_is_the_cost_models(file: Path) -> None:
    sizes = Sizes(block_size=32, head_dim=64, group=8, context=4096)
    report = check(file, config='{"topk_val": 10, "block_reserved_bos": 2, "dtype": "fp8_e4m3"}', sizes=sizes)
    cost = report.flows[0].cost
    assert cost is not None
    assert (cost.geometry["block_size"], cost.geometry["head_dim"], cost.geometry["group"]) == (32, 64, 8)
    assert (cost.context, cost.blocks, cost.chosen) == (4096, 128, 13)
    geometry = Geometry(32, 64, 8)
    expected = row_cost(trace_source(GOOD), geometry, 4096, 13, 2, 1, 2, 1)
    assert (cost.total.bytes, cost.total.flops) == (expected.bytes, expected.flops)
    assert cost.parts["scores"].bytes == expected.scores.bytes
    assert sum(part.bytes for part in cost.parts.values()) == pytest.approx(cost.total.bytes)
    assert cost.dense.bytes == 4096 * 2 * 64 * 2


@pytest.mark.parametrize("name", list_keys())
def test_every_shipped_flow(name: str) -> None:
    report = check(name)
    assert report.ok
    assert (report.file, report.flows[0].name) == (None, name)
    cost = report.flows[0].cost
    assert cost is not None
    assert 0 < cost.total.bytes < cost.dense.bytes


def test_several_flows_are_all_reported(file: Path) -> None:
    file.write_text(TWO)
    report = check(file)
    assert [flow.name for flow in report.flows] == ["mean_centroid", "with_spare"]
    assert report.flows[0].hash == report.flows[1].hash
    assert "'spare' is neither written nor read" in report.flows[1].advice[0]
    assert report.ok
    assert [flow.name for flow in check(file, name="with_spare").flows] == ["with_spare"]
    with pytest.raises(RegistryError, match="did you mean 'with_spare'"):
        check(file, name="with_spares")


def test_one_bad_flow_does_not_hide_the_other(file: Path) -> None:
    file.write_text(TWO.replace("self.select(score, o, ctx=ctx)", "pass", 1))
    report = check(file)
    assert not report.ok
    assert [flow.error is None for flow in report.flows] == [False, True]


def test_a_type_error(file: Path) -> None:
    file.write_text(ILL_TYPED)
    report = check(file)
    assert not report.ok
    error = report.flows[0].error
    assert error is not None
    assert (error.kind, error.op, error.line) == ("type", "topK", 24)
    assert error.shapes == ("score [S, block_size, 1]",)
    assert error.hint
    assert "Reduce dim 1" in error.hint


@pytest.mark.parametrize(
    ("source", "kind", "line", "part"),
    [
        (GOOD.replace("import torch\n", "import os\n"), "forbidden", 1, "`import os`"),
        ("def f(:\n", "syntax", 1, "not valid Python"),
        ("#" * 40_000, "resource", None, "at most 32768"),
    ],
)
def test_the_allow_list_comes_before_anything_runs(
    file: Path, source: str, kind: str, line: int | None, part: str
) -> None:
    file.write_text(source)
    report = check(file)
    assert not report.ok
    assert report.flows == ()
    assert report.source is not None
    assert (report.source.kind, report.source.line, part in report.source.message) == (kind, line, True)


def test_trust_executes_what_the_allow_list_refuses_and_says_so(file: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    file.write_text(f"import pathlib\npathlib.Path({str(touched)!r}).touch()\n{GOOD}")
    assert not check(file).ok
    assert not touched.exists()
    report = check(file, trust=True)
    assert touched.exists()
    assert (report.ok, report.trusted, len(report.flows)) == (True, True, 1)
    assert report.source is not None
    assert report.source.kind == "forbidden"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("@register", "# @register"), "registers no flow"),
        (("import torch\n", "import torch\nx = 1 / 0\n"), "ZeroDivisionError"),
    ],
)
def test_a_file_that_cannot_be_loaded(file: Path, change: tuple[str, str], part: str) -> None:
    file.write_text(GOOD.replace(*change, 1))
    report = check(file)
    assert not report.ok
    assert report.error is not None
    assert (report.error.kind, part in report.error.message) == ("load", True)


def test_names_of_shipped_flows_are_taken(file: Path) -> None:
    file.write_text(GOOD.replace("mean_centroid", "block_sparse_attention"))
    error = check(file).flows[0].error
    assert error is not None
    assert "ships a flow of this name" in error.message


def test_what_a_flow_relies_on(file: Path) -> None:
    file.write_text(ONLY_128)
    assert check(file).flows[0].guards == ("head_dim == 128",)
    report = check(file, sizes=Sizes(head_dim=64))
    error = report.flows[0].error
    assert error is not None
    assert (error.kind, error.line, report.ok) == ("type", 17, False)


def test_a_configuration_for_the_flows_of_a_file(file: Path) -> None:
    good = check(file, config='{"topk_val": 16, "block_size": 32}')
    assert good.ok
    assert good.config is not None
    assert (good.config.path, good.config.errors, good.config.warnings) == (None, (), ())
    assert (good.config.compiled, good.config.combinations) == (24, 24)
    bad = check(file, config='{"topk_val": 0, "block_size": 24}')
    assert not bad.ok
    assert bad.config is not None
    assert [(note.key, "must be" in note.message) for note in bad.config.errors] == [
        ("vortex.topk_val", False),
        ("vortex.block_size", True),
    ]
    other = check(file, config='{"module_name": "two_means"}')
    assert other.config is not None
    assert "no flow 'two_means'" in other.config.errors[0].message
    with pytest.raises(ConfigError, match="cannot be read"):
        check(file, config="{nonsense")
    with pytest.raises(ConfigError, match="cannot be read"):
        check(file, config=str(file.with_name("nothing.json")))


def test_a_configuration_brings_its_flow(file: Path) -> None:
    settings = file.with_name("engine.json")
    values = {
        "vortex_module_path": "flow.py",
        "vortex_module_name": "mean_centroid",
        "vortex_block_size": 64,
        "page_size": 64,
        "kv_cache_dtype": "fp8_e4m3",
    }
    settings.write_text(json.dumps(values))
    report = check(settings)
    assert report.ok
    assert report.file == str(file)
    cost = report.flows[0].cost
    assert cost is not None
    assert (cost.geometry["block_size"], cost.blocks) == (64, 512)
    assert cost.dense.bytes == 32768 * 2 * 128
    file.write_text(SAVING)
    settings.write_text(json.dumps({**values, "vortex_module_name": "remembers"}))
    report = check(settings)
    assert report.config is not None
    assert [note.key for note in report.config.errors] == ["disable_radix_cache"]
    settings.write_text(json.dumps({**values, "vortex_module_name": "mean_centroids"}))
    assert not check(settings).ok


def test_a_deployed_configuration_is_checked_too(file: Path) -> None:
    """As `VortexConfig.from_file` reads it, without prefixes."""
    settings = file.with_name("vortex_config.json")
    config = VortexConfig(module_name="mean_centroid", module_path="flow.py", block_size=32)
    settings.write_text(config.model_dump_json())
    report = check(settings)
    assert report.ok
    assert report.flows[0].name == "mean_centroid"


def test_no_such_file() -> None:
    with pytest.raises(FlowLoadError, match=r"no file nothing\.py"):
        check("nothing.py")


def test_the_json_has_the_documented_keys(file: Path) -> None:
    """Every attribute of the report's classes is a key, and nothing else is."""
    report = check(file, config='{"topk_val": 0}')
    document = json.loads(json.dumps(report.as_dict()))
    assert document.pop("ok") is False

    def same(value: Any, found: Any) -> None:
        if is_dataclass(value):
            assert set(found) == {part.name for part in fields(value)}
            for part in fields(value):
                same(getattr(value, part.name), found[part.name])
        elif isinstance(value, tuple):
            assert len(value) == len(found)
            for pair in zip(value, found, strict=True):
                same(*pair)
        elif isinstance(value, dict):
            assert set(value) == set(found)
            for key in value:
                same(value[key], found[key])
        else:
            assert value == found

    same(report, document)
