"""Dense attention's answers to a workload's prompts: the yardstick, made once with the workload."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evaluators.measure.answers import scored
from evaluators.measure.prompts import DenseAnswer
from evaluators.measure.stopping import AnswerWatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluators.ruler import Prompt
    from vortex.engine.hf.store import PromptStore


def answer_densely(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: PromptStore,
    prompts: Sequence[Prompt],
) -> tuple[list[DenseAnswer], float]:
    """The answers, and the seconds they took to decode."""
    from vortex.engine.hf.decode import decode

    limits = [prompt.max_new_tokens for prompt in prompts]
    watch = AnswerWatch(tokenizer, [p.answers for p in prompts], [p.metric for p in prompts], limits)
    begin = time.perf_counter()
    result = decode(model, store, None, None, None, limits, watch)
    seconds = time.perf_counter() - begin
    answers = scored(tokenizer, prompts, result.tokens)
    return [DenseAnswer.of(answer) for answer in answers], seconds
