"""The compile sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vortex.check.sources import GOOD, ILL_TYPED, ONLY_128, TWO
from vortex.errors import ConfigError, FlowLoadError, RegistryError
from vortex.flow import build_vflow, get, has, list_keys
from vortex.flow.verify import (
    BLOCK_SIZES,
    DTYPES,
    GRAPH_ONLY,
    GROUPS,
    HEAD_DIMS,
    LATENTS,
    MLA_GROUPS,
    VerifyError,
    verify_flow_compilable,
)
from vortex.targets import TARGETS

QUEST = "gqa_quest_sparse_attention"


@pytest.mark.parametrize("name", list_keys())
def test_every_shipped_flow_serves_every_shape(name: str) -> None:
    report = verify_flow_compilable(name, targets=GRAPH_ONLY)
    assert report.failed == ()
    mla = report.kind == "mla"
    shapes = len(LATENTS) * len(MLA_GROUPS) if mla else len(HEAD_DIMS) * len(GROUPS)
    assert len(report.compiled) == len(BLOCK_SIZES) * shapes
    assert {attempt.geometry.block_size for attempt in report.compiled} == set(BLOCK_SIZES)


@pytest.mark.parametrize("name", [QUEST, "quest_mla"])
def test_every_target_builds_its_programs(name: str) -> None:
    report = verify_flow_compilable(name, block_sizes=[16], groups=[4])
    assert report.failed == ()
    assert {(a.target, a.dtype) for a in report.compiled} == {(t, d) for t in TARGETS for d in DTYPES}


def test_a_flow_may_be_an_object_a_class_a_name_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(TWO.replace("mean_centroid", "verify_first").replace("with_spare", "verify_second"))
    few = {"block_sizes": [16], "head_dims": [64], "groups": [4], "targets": GRAPH_ONLY}
    for flow in (QUEST, get(QUEST), build_vflow(QUEST), f"{file}:verify_second"):
        assert len(verify_flow_compilable(flow, **few).compiled) == 1  # type: ignore[arg-type]
    with pytest.raises(FlowLoadError, match=r"choose one, as .*flow\.py:verify_first"):
        verify_flow_compilable(file)
    with pytest.raises(FlowLoadError, match="did you mean 'verify_first'"):
        verify_flow_compilable(f"{file}:verify_frist")
    with pytest.raises(FlowLoadError, match="cannot read"):
        verify_flow_compilable(tmp_path / "nothing.py")
    with pytest.raises(FlowLoadError, match="did you mean"):
        verify_flow_compilable("gqa_quest")


def test_a_file_may_change_between_two_sweeps_and_stays_out_of_the_registry(tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    for source in (GOOD, GOOD.replace("Mean query", "The mean query")):
        file.write_text(source)
        verify_flow_compilable(file, block_sizes=[16], targets=GRAPH_ONLY)
    assert not has("mean_centroid")
    file.write_text(GOOD.replace("mean_centroid", QUEST))
    with pytest.raises(RegistryError, match="ships a flow named"):
        verify_flow_compilable(file)


def test_what_fails_is_told_apart_from_what_compiles(tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(ONLY_128.replace("mean_centroid", "verify_only_128"))
    report = verify_flow_compilable(file, targets=GRAPH_ONLY)
    assert {attempt.geometry.head_dim for attempt in report.compiled} == {128}
    assert {attempt.geometry.head_dim for attempt in report.failed} == set(HEAD_DIMS) - {128}
    document = json.loads(json.dumps(report.as_dict()))
    assert (document["compiled"], document["failed"]) == (30, 90)
    assert "line 17" in next(a["error"] for a in document["attempts"] if a["error"])


def test_nothing_compiles(tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(ILL_TYPED.replace("mean_centroid", "verify_ill_typed"))
    with pytest.raises(VerifyError, match=r"does not compile for any shape: topK, line 24") as caught:
        verify_flow_compilable(file, targets=GRAPH_ONLY)
    assert len(caught.value.report.failed) == 120


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ((' {"centroids": (1, head_dim)}', ' {"k": (1, head_dim)}'), "must not declare 'k' key"),
        ((' {"centroids": (1, head_dim)}', ' {"v": (1, head_dim)}'), "must not declare 'v' key"),
        (('cache["centroids"], ctx=ctx)', "self.turn(q, ctx=ctx), ctx=ctx)"), "last dimension mismatch"),
    ],
)
def test_published_messages(tmp_path: Path, change: tuple[str, str], part: str) -> None:
    file = tmp_path / "flow.py"
    source = GOOD.replace("mean_centroid", "verify_published").replace(*change)
    source = source.replace("import GeMM,", "import GeMM, Transpose,").replace(
        "super().__init__()", "super().__init__(); self.turn = Transpose()"
    )
    file.write_text(source)
    with pytest.raises(VerifyError, match=part):
        verify_flow_compilable(file, targets=GRAPH_ONLY)


def test_unknown_targets_and_formats() -> None:
    with pytest.raises(ConfigError, match="unknown target 'tpu'"):
        verify_flow_compilable(QUEST, targets=["tpu"])
    with pytest.raises(ConfigError, match="did you mean 'bfloat16'"):
        verify_flow_compilable(QUEST, dtypes=["bfloat61"])  # type: ignore[list-item]


def test_a_compilers_own_errors_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target whose compiler breaks on one number format."""
    target = TARGETS["torch"]
    build = target.program

    def breaks(graph: object, geometry: object, dtype: str, **more: object) -> object:
        if dtype == "fp8_e5m2":
            raise RuntimeError("no such instruction")
        return build(graph, geometry, dtype, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(target, "program", breaks)
    report = verify_flow_compilable(QUEST, block_sizes=[16], head_dims=[64], groups=[4], targets=["torch"])
    (failed,) = report.failed
    assert (failed.dtype, failed.error) == ("fp8_e5m2", "RuntimeError: no such instruction")
    assert len(report.compiled) == len(DTYPES) - 1
