"""Preparation and measurement with the shipped probe model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluators.measure import ExcludedTask, Measurement
from evaluators.measure.evaluate import evaluate
from evaluators.measure.pareto import standings
from evaluators.measure.prepare import Prepared, PrepareError, prepare, split_tasks
from evaluators.measure.stats import paired_difference
from evaluators.probe import PROBE_PATH
from evaluators.probe.card import card
from vortex.config import VortexConfig
from vortex.flow import build_vflow, trace_flow

TASKS = ("niah_single_3", "niah_multikey_2", "vt")
LENGTH = 1024
CHEATS = (
    {"schedule_policy": "return cached_block_len < 256 ? cached_block_len : 4;"},
    {"layers_skip": [0, 1, 2, 3]},
    {"topk_val": 64},
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    cache = tmp_path_factory.mktemp("cache")
    return prepare(PROBE_PATH, length=LENGTH, samples=3, heldout_samples=4, gate=1, tasks=TASKS, cache=cache)


def measure(prepared: Prepared, flow: str | None, **knobs: object) -> Measurement:
    graph = trace_flow(build_vflow(flow)) if flow else None
    config = VortexConfig.model_validate({"block_size": 16, **knobs})
    return evaluate(graph, config, prepared.open_heldout())


def test_the_card_says_which_tasks_count(prepared: Prepared) -> None:
    known = card().accuracy(LENGTH)
    counted = tuple(task for task in TASKS if known[task] >= 0.8)
    assert prepared.search.spec.tasks == counted == prepared.heldout.tasks
    assert {task.task: task.dense_accuracy for task in prepared.excluded} == {
        task: known[task] for task in TASKS if task not in counted
    }
    assert prepared.heldout.samples == 4
    assert prepared.search.sources["niah_multikey_2"] == "synthetic"


def test_what_is_left_out_is_reported(prepared: Prepared) -> None:
    known = card().accuracy(LENGTH)
    worst = min(known, key=lambda task: known[task])
    counted, excluded = split_tasks({worst: 0.5, "vt": 0.9, "qa_1": None})
    assert counted == ("vt",)
    assert excluded == (
        ExcludedTask(task=worst, dense_accuracy=0.5),
        ExcludedTask(task="qa_1", dense_accuracy=None),
    )


def test_the_probe_tells_budgets_apart_and_cheats_win_nothing(prepared: Prepared) -> None:
    dense = measure(prepared, None)
    starved = measure(prepared, "block_sparse_attention", topk_val=1)
    fed = measure(prepared, "gqa_quest_sparse_attention", topk_val=16)
    assert dense.accuracy >= 0.8
    assert paired_difference(fed, starved).low > 0.0
    assert starved.bytes_per_step < fed.bytes_per_step < dense.bytes_per_step
    for cheat in CHEATS:
        found = measure(prepared, "gqa_quest_sparse_attention", **cheat)
        assert [s.bytes for s in found.samples] == [s.dense_bytes for s in dense.samples]
        assert [s.prediction for s in found.samples] == [s.prediction for s in dense.samples]
        (standing,) = standings({"cheat": found}, {"dense": dense, "starved": starved, "fed": fed})
        assert not standing.is_win


@pytest.mark.parametrize(
    ("flow", "topk"), [("block_sparse_attention", 12), ("gqa_quest_sparse_attention", 8)]
)
def test_stopping_early_is_exact_on_real_answers(prepared: Prepared, flow: str, topk: int) -> None:
    graph, workload = trace_flow(build_vflow(flow)), prepared.search
    config = VortexConfig.model_validate({"block_size": 16, "topk_val": topk})
    early, full = (evaluate(graph, config, workload, stop_early=early) for early in (True, False))
    assert [s.score for s in early.samples] == [s.score for s in full.samples]
    assert sum(s.new_tokens for s in early.samples) < sum(s.new_tokens for s in full.samples)


def test_a_model_without_a_card_is_judged_by_its_own_answers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PROBE_PATH, folder)
    own = prepare(folder, length=512, samples=2, gate=1, tasks=("niah_single_1",), cache=tmp_path / "cache")
    assert own.excluded == ()
    assert own.search.dense_accuracy()["niah_single_1"] >= 0.8


def test_a_model_that_answers_nothing_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="niah_single_1"):
        prepare(model_folder, length=260, samples=1, gate=1, tasks=("niah_single_1",), cache=tmp_path)
