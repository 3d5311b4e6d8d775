"""Prompts for a serving engine: made without a model, answered once, for one engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evaluators.measure.measurement import ExcludedTask
from evaluators.measure.prompts import DenseAnswer
from evaluators.measure.spec import WorkloadSpec
from evaluators.measure.workload import Workload
from evaluators.serving.engine import ServingOptions
from evaluators.serving.prepare import with_room
from evaluators.serving.prompts import AnswersFile, ServedPrompts, ServedWorkload, served_key
from evaluators.serving.ruler import for_search

ENGINE = "one engine"


class Answering:
    """Answers every prompt the same, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, prompts: ServedPrompts) -> AnswersFile:
        self.asked += 1
        answers = tuple(DenseAnswer(prediction="x", score=1.0, tokens=2) for _ in prompts.prompts)
        return AnswersFile(engine=ENGINE, seconds=1.0, answers=answers)


def test_they_are_the_prompts_of_the_transformers_engine(workload: Workload, tmp_path: Path) -> None:
    served = ServedPrompts.ensure(workload.spec, ENGINE, tmp_path)
    assert [list(ids) for ids in served.ids] == [list(p.tokens) for p in workload.store.prompts]
    assert [prompt.model_dump() for prompt in served.prompts] == [
        prompt.model_dump(exclude={"dense"}) for prompt in workload.prompts
    ]
    assert (served.gate, served.rest) == (workload.gate, workload.rest)
    assert served.sources == workload.sources


def test_a_driver_loads_no_model(model_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import transformers\n"
        "def refuse(*_, **__): raise AssertionError('a model is loaded')\n"
        "transformers.AutoModelForCausalLM.from_pretrained = refuse\n"
        "from evaluators.measure.spec import WorkloadSpec\n"
        "from evaluators.serving.prompts import ServedPrompts\n"
        "tasks = ('niah_single_1',)\n"
        "spec = WorkloadSpec(model=Path(sys.argv[1]), tasks=tasks, length=260, samples=2, gate=1)\n"
        "print(len(ServedPrompts.ensure(spec, 'e', Path(sys.argv[2]))), 'sglang' in sys.modules)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(model_folder), str(tmp_path)], capture_output=True, text=True
    )
    assert told.stdout == "2 False\n", told.stderr


def test_an_engine_answers_once(spec: WorkloadSpec, tmp_path: Path) -> None:
    prompts, answering = ServedPrompts.ensure(spec, ENGINE, tmp_path), Answering()
    (tmp_path / f".{prompts.key}.dense.json.partial").write_text("torn by a worker that was killed")
    first, again = (ServedWorkload.ensure(prompts, tmp_path, answering) for _ in range(2))
    assert answering.asked == 1
    assert first.prompts == again.prompts
    assert {prompt.dense.tokens for prompt in again.prompts} == {2}
    other = ServedPrompts.ensure(spec, "another engine", tmp_path)
    ServedWorkload.ensure(other, tmp_path, answering)
    assert answering.asked == 2
    assert other.ids == prompts.ids


def test_an_engine_that_dies_leaves_no_answers(spec: WorkloadSpec, tmp_path: Path) -> None:
    prompts = ServedPrompts.ensure(spec, ENGINE, tmp_path)

    def dies(_prompts: ServedPrompts) -> AnswersFile:
        raise RuntimeError("died")

    with pytest.raises(RuntimeError):
        ServedWorkload.ensure(prompts, tmp_path, dies)
    answering = Answering()
    assert len(ServedWorkload.ensure(prompts, tmp_path, answering)) == len(prompts)
    assert answering.asked == 1


def test_the_key_is_of_the_prompts_and_the_engine(spec: WorkloadSpec) -> None:
    keys = {served_key(one, engine) for one in (spec, spec.heldout()) for engine in ("a", "b")}
    assert len(keys | {spec.key}) == 5


def test_excluded_tasks_are_not_measured(spec: WorkloadSpec, tmp_path: Path) -> None:
    excluded = [ExcludedTask(task="fwe", dense_accuracy=0.1)]
    prompts = ServedPrompts.ensure(spec, ENGINE, tmp_path, excluded)
    opened = ServedWorkload.ensure(prompts, tmp_path, Answering())
    for one in (prompts, opened):
        assert {one.prompts[i].task for i in one.positions} == set(spec.tasks) - {"fwe"}


def test_the_cache_has_room_for_every_prompt(spec: WorkloadSpec) -> None:
    options = ServingOptions(page_size=64)
    room = with_room(options, (spec, spec.heldout())).max_total_tokens
    assert room is not None
    assert room % 64 == 0
    assert room >= 2 * len(spec.tasks) * spec.samples * spec.length
    given = options.model_copy(update={"max_total_tokens": 4096})
    assert with_room(given, (spec,)) == given


def test_an_engine_is_started_as_asked(tmp_path: Path) -> None:
    from vortex.config import VortexConfig

    options = ServingOptions(tp_size=2, kv_cache_dtype="fp8_e4m3", extra={"max_running_requests": 4})
    dense, config = options.arguments(tmp_path, None), VortexConfig(module_name="block_sparse_attention")
    assert (dense["model_path"], dense["kv_cache_dtype"]) == (str(tmp_path), "fp8_e4m3")
    assert dense["max_running_requests"] == 4
    assert "vortex" not in dense
    assert "mem_fraction_static" not in dense
    sparse = options.arguments(tmp_path, config)
    assert sparse == dense | {"vortex": config}
    assert (options.gpus, ServingOptions(device="cpu").gpus) == (2, 0)


def test_an_engine_of_a_search_has_few_graphs() -> None:
    cuda, cpu = (for_search(ServingOptions(device=device)).extra for device in ("cuda", "cpu"))
    assert cpu == {}
    assert cuda["disable_prefill_cuda_graph"] is True
    assert max(cuda["cuda_graph_bs_decode"]) == cuda["max_running_requests"]
    given = ServingOptions(extra={"max_running_requests": 8})
    assert for_search(given).extra["max_running_requests"] == 8
