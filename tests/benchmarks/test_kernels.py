"""The benchmark of the kernels: the page shows what was measured, and a wrong layer is found out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.cases import (
    GLM_47_FLASH,
    QWEN3_8B,
    Case,
    Model,
    Store,
    config_of,
    graph_of,
    page_table,
    queries,
)
from benchmarks.kernels.layer import SparseLayers
from benchmarks.kernels.report import tables
from benchmarks.kernels.results import Results, merged
from vortex.runtime.crossover import KEYS_AND_VALUES, LATENTS, layer_costs
from vortex.runtime.decode import step_size

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks"
SMALL = Case(Model("small", heads=2, group=2, head_dim=32), context=256, batch=2)


def recorded() -> Results:
    return Results.model_validate_json((PAGE / "kernels.json").read_text(encoding="utf-8"))


def test_the_page_holds_the_tables_of_what_was_measured() -> None:
    assert (PAGE / "kernels.md").read_text(encoding="utf-8").endswith(tables(recorded()))


def test_a_later_run_replaces_what_it_measured_again() -> None:
    first, second = recorded(), recorded()
    second.plan = [row.model_copy(update={"launches": 7.0}) for row in second.plan[:1]]
    both = merged([first.model_dump(mode="json"), second.model_dump(mode="json")])
    assert [row.launches for row in both.plan] == [7.0, *(row.launches for row in first.plan[1:])]
    assert both.sparse == first.sparse


MEASURED = re.compile(
    r"(?P<flow>\w+) (?P<model>[\w.-]+) (?P<context>\d+)K x (?P<batch>\d+): dense (?P<dense>[\d.]+) "
    r"\(model (?P<dense_us>[\d.]+)\), sparse (?P<sparse>[\d.]+) \(model (?P<sparse_us>[\d.]+)\)"
    r"(?P<wrong> WRONG)?"
)
RATES = {QWEN3_8B.name: (QWEN3_8B, KEYS_AND_VALUES), GLM_47_FLASH.name: (GLM_47_FLASH, LATENTS)}


def test_the_crossover_decides_as_was_measured() -> None:
    """Every layer of the page, by the coefficients that the plan has."""
    wrong = dict.fromkeys(RATES, 0)
    found = list(MEASURED.finditer((PAGE / "crossover.md").read_text(encoding="utf-8")))
    for row in found:
        (model, rates), batch = RATES[row["model"]], int(row["batch"])
        config = config_of(row["flow"], model)
        graph, geometry, heads = graph_of(config, model), model.geometry, model.heads
        tokens = int(row["context"]) * 1024
        size = step_size(
            graph, geometry, config, requests=batch, heads=heads, tokens=tokens, share=heads, device="cpu"
        )  # fmt: skip
        scored = size.blocks - size.bos - size.eos
        costs = layer_costs(graph, geometry, size, 2, 2, 4, rates)
        dense_us, sparse_us = costs.times(*(batch * each for each in (size.blocks, scored, 64)))
        assert float(row["dense_us"]) == pytest.approx(float(dense_us), rel=0.01)
        assert float(row["sparse_us"]) == pytest.approx(float(sparse_us), rel=0.01)
        right = (dense_us <= sparse_us) == (float(row["dense"]) <= float(row["sparse"]))
        assert right == (row["wrong"] is None)
        wrong[row["model"]] += not right
    assert len(found) == 56
    assert wrong == {QWEN3_8B.name: 0, GLM_47_FLASH.name: 3}


@pytest.fixture(scope="module")
def layer() -> SparseLayers:
    config = config_of("block_sparse_attention", SMALL.model).model_copy(update={"topk_val": 3})
    pools = Store(SMALL.model, SMALL.tokens, "cpu").pools(SMALL, 1)
    graph = graph_of(config, SMALL.model)
    return SparseLayers(SMALL, config, graph, pools, page_table(SMALL, "cpu"))


def test_a_layer_is_right(layer: SparseLayers) -> None:
    recall, error = layer.check(queries(SMALL, 1, "cpu")[0])
    assert recall == 1
    assert error < 1e-2


def test_another_choice_is_found_out(layer: SparseLayers, monkeypatch: pytest.MonkeyPatch) -> None:
    score = layer.decode.program.score
    monkeypatch.setattr(layer.decode.program, "score", lambda *given: torch.neg(score(*given)))
    with pytest.raises(AssertionError, match="low score"):
        layer.check(queries(SMALL, 1, "cpu")[0])
