"""A probe's card: what it scores densely, and how accuracy falls with the budget of known selections."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from evaluators.probe.load import PROBE_PATH
from evaluators.probe.model import Shape

COUNTED_FROM = 0.8
_MODEL: dict[Shape, str] = {
    "gqa": "A Qwen3-shaped model (4 layers, hidden 256, 8 query and 2 kv heads of 64, 7.8M parameters, bf16)",
    "mla": "A model with multi-head latent attention, DeepSeek-V3-shaped but without experts (4 layers,"
    " hidden 256, 8 heads of 32 + 32 for q and k and 64 for v, latents of 128 + 32, 7.9M parameters, bf16)",
}
_PURPOSE = (
    ", trained from nothing on this project's own RULER prompts, all tasks but QA. It exists to tell sparse"
    " attention that finds things from sparse attention that does not. Its accuracy is its own and says"
    " nothing of a large model's. No data of others went in but the word lists of `wonderwords` (MIT)."
)


class DenseScore(BaseModel):
    """Mean dense score of one task at one length over `samples` prompts of an unseen `seed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: str
    length: int = Field(gt=0)
    score: float = Field(ge=0, le=1)
    samples: int = Field(gt=0)
    seed: int


class BudgetScore(BaseModel):
    """Mean score of one selection with `blocks` scored blocks a row, with its 95% bootstrap interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    selection: str
    blocks: int = Field(gt=0)
    score: float
    low: float
    high: float


class Card(BaseModel):
    """card.json beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: Shape
    training: str = Field(description="hardware, time and tokens of the training run, in one sentence")
    dense: tuple[DenseScore, ...]
    budget_length: int = Field(description="prompt length of the budget table, tokens")
    budget_samples: int = Field(description="prompts a counted task in the budget table")
    budget_block_size: int
    budgets: tuple[BudgetScore, ...]

    def accuracy(self, length: int) -> dict[str, float]:
        """Dense accuracy by task at `length`; empty where that length was not measured."""
        return {score.task: score.score for score in self.dense if score.length == length}

    def counted(self, length: int) -> tuple[str, ...]:
        """Tasks whose dense accuracy is at least 80% at the nearest measured length that is not shorter.

        A length beyond the longest measured one uses the longest.
        """
        lengths = sorted({score.length for score in self.dense})
        at = next((measured for measured in lengths if measured >= length), lengths[-1])
        return tuple(task for task, score in self.accuracy(at).items() if score >= COUNTED_FROM)

    def markdown(self) -> str:
        """The card for people, from the numbers alone."""
        lengths = sorted({score.length for score in self.dense})
        samples = sorted({score.samples for score in self.dense})
        lines = [
            "# Probe model",
            "",
            *textwrap.wrap(_MODEL[self.shape] + _PURPOSE, width=100),
            "",
            f"Training: {self.training}",
            "",
            f"Dense accuracy in percent, {'/'.join(map(str, samples))} unseen prompts a task and length (seed"
            f" {self.dense[0].seed}), transformers' greedy generation. A task below {COUNTED_FROM:.0%}"
            " does not count in a search at that length.",
            "",
            "| task | " + " | ".join(map(str, lengths)) + " |",
            "|---|" + "---|" * len(lengths),
        ]
        for task in dict.fromkeys(score.task for score in self.dense):
            cells = [self.accuracy(length).get(task) for length in lengths]
            lines.append(
                f"| {task} | " + " | ".join("-" if c is None else f"{100 * c:.1f}" for c in cells) + " |"
            )
        blocks = sorted({budget.blocks for budget in self.budgets})
        lines += [
            "",
            f"Accuracy in percent by number of scored blocks of {self.budget_block_size} tokens, mean over"
            f" the {len(self.counted(self.budget_length))} counted tasks at {self.budget_length} tokens,"
            f" {self.budget_samples} prompts a task, every layer sparse, first block and last two kept, with"
            " 95% bootstrap intervals (`python -m evaluators.probe.describe`, CPU, float32).",
            "",
            "| selection | " + " | ".join(map(str, blocks)) + " |",
            "|---|" + "---|" * len(blocks),
        ]
        found = {
            (b.selection, b.blocks): f"{100 * b.score:.0f} [{100 * b.low:.0f}, {100 * b.high:.0f}]"
            for b in self.budgets
        }
        for selection in dict.fromkeys(b.selection for b in self.budgets):
            lines.append(f"| {selection} | " + " | ".join(found[selection, b] for b in blocks) + " |")
        return "\n".join(lines) + "\n"


@cache
def card(path: Path = PROBE_PATH / "card.json") -> Card:
    return Card.model_validate_json(path.read_text())
