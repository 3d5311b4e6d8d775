"""The docs and stubs are generated from the table and fresh; the table is sound."""

from __future__ import annotations

import importlib

import pytest

from vortex.errors import FlowTypeError
from vortex.graph import Stage
from vortex.ops import OPS, OpDef, find_op, stage_ops
from vortex.ops.params import REQUIRED
from vortex.ops.registry import define
from vortex.ops.table import example_attrs, example_result, generated, markdown

EVERY = [(stage, op) for (stage, _), op in OPS.items()]
IDS = [f"{stage}-{op.name}" for stage, op in EVERY]


def test_generated_files_are_fresh() -> None:
    for path, text in generated().items():
        assert path.read_text() == text, f"{path} is stale: run python -m vortex.ops.table"


@pytest.mark.parametrize(("stage", "op"), EVERY, ids=IDS)
def test_every_example_is_well_typed_and_in_the_docs(stage: Stage, op: OpDef) -> None:
    result = example_result(op, stage)
    assert result.rows >= 1
    assert example_attrs(op, stage).keys() == {param.name for param in op.params}
    assert f"`{op.signature}`" in markdown()
    assert op.doc.endswith(".")


@pytest.mark.parametrize(("stage", "op"), EVERY, ids=IDS)
def test_defaults_are_accepted(stage: Stage, op: OpDef) -> None:
    required = {"start": 0, "end": 1, "dim": 1, "lead": -1, "rows": 1, "cols": 1, "k": 1}
    required |= {"value": [[1.0]], "weight": [[[1.0]]]}
    given = {param.name: required[param.name] for param in op.params if param.default is REQUIRED}
    bound = op.bind((), given, stage)
    assert op.bind((), bound, stage) == bound


@pytest.mark.parametrize("stage", list(Stage))
def test_the_modules_hold_one_class_per_op(stage: Stage) -> None:
    module = importlib.import_module(f"vortex.{stage}")
    assert sorted(module.__all__) == sorted(stage_ops(stage))
    for name, op in stage_ops(stage).items():
        assert getattr(module, name).definition is op


def test_a_name_is_defined_once() -> None:
    with pytest.raises(ValueError, match="already has an op GeMM"):
        define(find_op(Stage.INDEXER, "GeMM"))


def test_unknown_ops_name_the_nearest() -> None:
    with pytest.raises(FlowTypeError, match="did you mean 'GeMM'"):
        find_op(Stage.INDEXER, "GEMM")
    with pytest.raises(FlowTypeError, match=r"op of vortex.indexer, not of vortex.cache.*Mean"):
        find_op(Stage.CACHE, "Sum")


@pytest.mark.parametrize("name", ["Sum", "Softmax", "Normalize", "Transpose", "Kron", "GeMV", "topK"])
def test_ops_that_the_cache_lacks_name_the_way(name: str) -> None:
    with pytest.raises(FlowTypeError, match=f"{name} is an op of vortex.indexer"):
        find_op(Stage.CACHE, name)


def test_what_each_stage_has() -> None:
    """Sections 2 and 3 of the language contract."""
    shared = "Max Min Mean L2Norm Maximum Minimum Multiply Add GeMM Reshape MaskSlice"
    shared += " Relu Sigmoid Silu Add_Mul Abs Log Exp"
    where = "WhereEqual WhereNotEqual WhereGreater WhereGreaterEqual WhereLess WhereLessEqual"
    indexer = "GeMV Sum Kron Transpose Softmax Normalize Load Save topK approxTopK TopK Union"
    indexer += " Parameter LearnedQuery Conv1d"
    cache = "Fill MeanInterleave MaxInterleave MinInterleave L2NormInterleave"
    assert set(stage_ops(Stage.INDEXER)) == set(f"{shared} {where} {indexer}".split())
    assert set(stage_ops(Stage.CACHE)) == set(f"{shared} {where} {cache}".split())
