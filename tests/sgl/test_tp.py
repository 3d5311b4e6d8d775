"""Two tensor-parallel ranks over gloo: each chooses for its own kv heads, and both swap flows together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import LAYERS, TOLERANCE, apart, ask, forced, random_prompts, settings
from vortex.engine.sgl import control
from vortex.errors import ConfigError

QUEST = settings("gqa_quest_sparse_attention")
pytestmark = pytest.mark.full
OPTIONS = {"tp_size": 2, "disable_overlap_schedule": True}


@pytest.fixture(scope="module", autouse=True)
def _a_core_for_each_rank() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|1")
        yield


@pytest.mark.parametrize("name", ["gqa_quest_sparse_attention", "running_avg_block_sparse"])
def test_two_ranks_answer_as_one(engines: Engines, model: PreTrainedModel, name: str) -> None:
    config = settings(name)
    prompts = random_prompts(200, 10, 130)
    engine = engines.sparse(QUEST, **OPTIONS)
    control.deploy(engine, config)
    answers = ask(engine, prompts, 24)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert apart(answer.logprobs, forced(model, prompt, answer.tokens, config)) < TOLERANCE
    counted = control.counters(engine)
    assert counted.flow == name
    assert (counted.rows_sparse, counted.rows_dense) == (2 * 23, 23)  # one kv head a rank
    blocks = sum(-(-n // 16) for n in range(11, 34))
    assert counted.blocks_read == LAYERS * (3 * 2 * 23 + blocks)


def test_a_refused_flow_changes_no_rank(engines: Engines, model: PreTrainedModel) -> None:
    engine = engines.sparse(QUEST, **OPTIONS)
    with pytest.raises(ConfigError, match="no_such_flow"):
        control.deploy(engine, settings("no_such_flow"))
    (prompt,) = random_prompts(150)
    (answer,) = ask(engine, [prompt])
    assert control.counters(engine).flow == QUEST.module_name
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens, QUEST)) < TOLERANCE


SHORT_OF_MEMORY = """
import torch.distributed
from vortex.engine.sgl.on_host import HostDeployed
from vortex.flow import register
from vortex.flow.algorithms import BlockSparseAttention

def summarise_all(self):
    raise MemoryError("no room for summaries")

if torch.distributed.get_rank() == 1:
    HostDeployed.summarise_all = summarise_all

@register("short_of_memory")
class ShortOfMemory(BlockSparseAttention):
    pass
"""


def test_a_rank_that_fails_alone_changes_no_rank(
    engines: Engines, model: PreTrainedModel, tmp_path: Path
) -> None:
    engine = engines.sparse(QUEST, **OPTIONS)
    file = tmp_path / "flow.py"
    file.write_text(SHORT_OF_MEMORY)
    with pytest.raises(ConfigError, match="MemoryError: no room for summaries"):
        control.deploy(engine, settings("short_of_memory", module_path=str(file)))
    (prompt,) = random_prompts(150)
    (answer,) = ask(engine, [prompt])
    assert apart(answer.logprobs, forced(model, prompt, answer.tokens, QUEST)) < TOLERANCE
