"""Other dense backends than the default under the same sparse decode, and batches of prefill and decode."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from tests.sgl.engines import Engines
from tests.sgl.models import TOLERANCE, apart, ask, forced, random_prompts, settings
from vortex.engine.sgl import control

pytestmark = pytest.mark.full
QUEST = settings("gqa_quest_sparse_attention")


@pytest.mark.parametrize(
    ("options", "dense"),
    [
        ({"attention_backend": "triton"}, "TritonAttnBackend"),
        ({"attention_backend": "flex_attention"}, "TorchFlexAttnBackend"),
        ({"prefill_attention_backend": "triton"}, "HybridAttnBackend"),
    ],
    ids=["triton", "flex_attention", "triton for prefill only"],
)
def test_dense_backends(
    engines: Engines, model: PreTrainedModel, options: dict[str, str], dense: str
) -> None:
    engine = engines.sparse(QUEST, **options)
    prompts = random_prompts(150, 20)
    for prompt, answer in zip(prompts, ask(engine, prompts, 12), strict=True):
        assert apart(answer.logprobs, forced(model, prompt, answer.tokens, QUEST)) < TOLERANCE
    counted = control.counters(engine)
    assert counted.dense_backend == dense
    assert counted.sparse_steps >= 11


def test_decode_beside_a_prefill_is_dense(engines: Engines, model: PreTrainedModel) -> None:
    """With mixed chunks a prompt that comes late is prefilled in batches that hold decode rows too. Only the
    last layer is sparse: what a step should give does not depend on how its prefix was read. SGLang mixes
    no requests that ask for log-probabilities, so tokens are compared."""
    config = settings("gqa_quest_sparse_attention", layers_skip=[0, 1])
    engine = engines.sparse(config, enable_mixed_chunk=True, chunked_prefill_size=32, max_running_requests=2)
    prompts = random_prompts(120, 250, 240, 260, 250)
    limits = [{"temperature": 0, "max_new_tokens": n, "ignore_eos": True} for n in (150, 20, 20, 20, 20)]
    only_sparse = only_dense = 0
    for prompt, output in zip(
        prompts, engine.generate(input_ids=prompts, sampling_params=limits), strict=True
    ):
        tokens = torch.tensor(output["output_ids"])
        sparse = forced(model, prompt, output["output_ids"], config).argmax(-1) == tokens
        dense = forced(model, prompt, output["output_ids"]).argmax(-1) == tokens
        assert (sparse | dense).all()
        only_sparse += int((sparse & ~dense).sum())
        only_dense += int((dense & ~sparse).sum())
    assert only_sparse > 20
    assert only_dense > 3
