"""Dense accuracy of a model on RULER by transformers' own greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.ruler import TASKS, LengthError, Prompt, generate, score

LENGTHS = (1024, 2048, 4096)
PROBE_TASKS = tuple(name for name in TASKS if not name.startswith("qa"))
# Seeds below this are for training and search; dense accuracy is of seeds that neither has seen.
UNSEEN_SEED = 1_000_003


@dataclass(frozen=True)
class TaskScore:
    """Mean score of one task at one length over `samples` prompts of `seed`."""

    task: str
    length: int
    score: float
    samples: int
    seed: int


def dense_accuracy(
    model: Any,
    tokenizer: Any,
    *,
    samples: int,
    lengths: Sequence[int] = LENGTHS,
    seed: int = UNSEEN_SEED,
    batch: int = 25,
) -> list[TaskScore]:
    """Greedy generation of every probe task that fits each length, on the model's device."""
    found = []
    for length in lengths:
        for name in PROBE_TASKS:
            try:
                prompts = generate(name, length, tokenizer, samples, seed)
            except LengthError:
                continue
            scores = []
            for start in range(0, len(prompts), batch):
                part = prompts[start : start + batch]
                texts = generate_texts(model, tokenizer, part)
                scores += [score(p.metric, text, p.answers) for p, text in zip(part, texts, strict=True)]
            found.append(TaskScore(name, length, sum(scores) / len(scores), samples, seed))
    return found


def generate_texts(model: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> list[str]:
    """Greedy continuations of `prompts` (left-padded batch), without special tokens."""
    import torch

    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, longest - len(prompt.ids) :] = 1
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=prompts[0].max_new_tokens,
        )
    texts: list[str] = tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
    return texts


def table(scores: Sequence[TaskScore]) -> str:
    """One line a task, one column a length, in percent."""
    lengths = sorted({s.length for s in scores})
    cells = {(s.task, s.length): f"{100 * s.score:5.1f}" for s in scores}
    lines = [f"{'task':18s}" + "".join(f"{length:>8d}" for length in lengths)]
    for name in dict.fromkeys(s.task for s in scores):
        lines.append(f"{name:18s}" + "".join(f"{cells.get((name, length), '-'):>8s}" for length in lengths))
    return "\n".join(lines)
