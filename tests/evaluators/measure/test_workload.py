from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import pytest

from evaluators.measure.spec import SEED_OFFSET, SEEDS, WorkloadSpec, hash_model
from evaluators.measure.workload import META, Workload

TINY = {"tasks": ("niah_single_1",), "length": 260, "samples": 2, "gate": 1}


def ensure(spec: WorkloadSpec, cache: Path, results: multiprocessing.Queue[str]) -> None:
    workload = Workload.ensure(spec, cache)
    results.put(f"{workload.key} {len(workload)}")


def test_prompts_are_stored_once_and_opened_again(
    workload: Workload, spec: WorkloadSpec, cache: Path
) -> None:
    before = (workload.path / META).stat().st_mtime_ns
    again = Workload.ensure(spec, cache)
    assert (again.path / META).stat().st_mtime_ns == before
    assert again.meta == workload.meta
    assert len(again) == len(spec.tasks) * spec.samples == len(again.store)
    for prompt, stored in zip(again.meta.prompts, again.store.prompts, strict=True):
        assert prompt.tokens == len(stored.tokens)
        assert prompt.tokens + prompt.max_new_tokens <= spec.length
        assert 1 <= prompt.dense.tokens <= prompt.max_new_tokens


def test_gate_and_rest_share_out_the_prompts(workload: Workload) -> None:
    tasks = [workload.meta.prompts[position].task for position in workload.gate]
    assert tasks == list(workload.spec.tasks)
    assert sorted((*workload.gate, *workload.rest)) == list(workload.positions) == list(range(len(workload)))


def test_excluded_tasks_are_not_measured(workload: Workload) -> None:
    from evaluators.measure import ExcludedTask

    partial = Workload(
        workload.path, workload.spec, workload.meta, [ExcludedTask(task="fwe", dense_accuracy=0.1)]
    )
    assert {workload.meta.prompts[i].task for i in partial.positions} == set(workload.spec.tasks) - {"fwe"}
    assert set(partial.gate) | set(partial.rest) == set(partial.positions)


def test_heldout_prompts_are_other_prompts(model_folder: Path, tmp_path: Path) -> None:
    search = WorkloadSpec(model=model_folder, **TINY)
    heldout = search.heldout(samples=3)
    a, b = (Workload.ensure(spec, tmp_path) for spec in (search, heldout))
    assert a.key != b.key
    assert (len(a), len(b)) == (2, 3)
    assert not {p.tokens for p in a.store.prompts} & {p.tokens for p in b.store.prompts}


def test_seeds_of_the_splits_never_meet() -> None:
    search, heldout = SEED_OFFSET["search"], SEED_OFFSET["heldout"]
    assert search + SEEDS <= heldout
    assert heldout + SEEDS < 1_000_003  # the card's seeds


def test_the_key_is_of_everything_that_prompts_and_answers_depend_on(
    model_folder: Path, tmp_path: Path
) -> None:
    spec = WorkloadSpec(model=model_folder, **TINY)
    others = [{"length": 280}, {"samples": 3}, {"seed": 1}, {"tasks": ("fwe",)}, {"essay": "text.txt"}]
    keys = {WorkloadSpec.model_validate({**spec.model_dump(), **change}).key for change in others}
    assert len(keys | {spec.key}) == len(others) + 1
    moved = tmp_path / "moved"
    shutil.copytree(model_folder, moved)
    assert spec.model_copy(update={"model": moved}).key == spec.key
    (moved / "tokenizer_config.json").write_text("{}")
    hash_model.cache_clear()
    assert spec.model_copy(update={"model": moved}).key != spec.key


def test_builders_at_the_same_time_build_once(model_folder: Path, tmp_path: Path) -> None:
    spec = WorkloadSpec(model=model_folder, **TINY)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    builders = [context.Process(target=ensure, args=(spec, tmp_path, results)) for _ in range(3)]
    for builder in builders:
        builder.start()
    found = {results.get(timeout=60) for _ in builders}
    for builder in builders:
        builder.join()
    assert found == {f"{spec.key} 2"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [spec.key]


def test_what_a_killed_builder_left_is_cleared(model_folder: Path, tmp_path: Path) -> None:
    spec = WorkloadSpec(model=model_folder, **TINY)
    partial = tmp_path / f".{spec.key}.partial"
    partial.mkdir()
    (partial / "layer0.k").write_bytes(b"torn")
    assert len(Workload.ensure(spec, tmp_path)) == 2
    assert not partial.exists()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        _ = WorkloadSpec(model=tmp_path, **TINY).key
    with pytest.raises(ValueError, match="gate=9"):
        WorkloadSpec(model=tmp_path, tasks=("fwe",), samples=8, gate=9)
