"""Trains the probe model from nothing on one GPU: `python -m evaluators.probe.train --out FOLDER`.

Checkpoints every minute and resumes from the last one; `--minutes` is the training time over all resumes.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluators.probe.model import Shape

if TYPE_CHECKING:
    import torch

    from evaluators.probe.curriculum import Phase

LEARNING_RATE = 2e-3
WARMUP_STEPS = 400
DECAY_SHARE = 0.25
OTHER_WEIGHT = 0.2
LEAST_STEPS = 200
CHECKPOINT_SECONDS = 60.0


@dataclass
class Progress:
    """Where training stands; saved with every checkpoint."""

    step: int = 0
    phase: int = 0
    phase_step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    right: dict[str, float] = field(default_factory=dict)


class CheckpointError(RuntimeError):
    """A checkpoint that training cannot go on from."""


class Trainer:
    """One training run in `out`: model, optimiser, progress."""

    def __init__(
        self,
        out: Path,
        minutes: float,
        seed: int,
        device: str,
        workers: int,
        compiled: bool,
        shape: Shape = "gqa",
    ) -> None:
        import torch

        from evaluators.probe.model import new_model
        from evaluators.probe.tokenizer import build

        torch.manual_seed(seed)
        torch.set_float32_matmul_precision("high")
        self.out, self.limit, self.seed, self.device, self.workers = out, minutes * 60, seed, device, workers
        self.tokenizer = build()
        self.model = new_model(self.tokenizer, shape).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=LEARNING_RATE,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            fused=device == "cuda",
        )
        self.progress = Progress()
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss
        self.checkpoint = out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._restore()
            print(f"resumed at step {self.progress.step}, {self.progress.seconds:.0f} s trained", flush=True)

    def _restore(self) -> None:
        import torch

        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
        except Exception as error:  # a cut or foreign file raises errors of many kinds
            raise CheckpointError(
                f"{self.checkpoint} is damaged or of another model ({type(error).__name__});"
                " delete it to train from the beginning, or choose another folder"
            ) from error

    def save(self) -> None:
        """Writes the checkpoint whole or not at all."""
        import torch

        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def write(self, folder: Path) -> None:
        """The model in bf16 and its tokenizer, for `from_pretrained`; training cannot go on after it."""
        import torch

        self.tokenizer.save_pretrained(folder)
        self.model.eval().to(torch.bfloat16).save_pretrained(folder)

    def _loss(
        self, x: torch.Tensor, at: torch.Tensor, kind: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [B, L + 1], at and kind [B, K]: the loss, and per sequence (right, all) answer tokens [B, 2]."""
        import torch
        import torch.nn.functional as F

        # Most CPUs emulate bf16.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type != "cpu"):
            hidden = self.model.model(input_ids=x[:, :-1], use_cache=False).last_hidden_state
            hidden = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
            logits = F.linear(hidden, self.model.lm_head.weight)
        target = x.gather(1, at + 1)
        loss = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none").view_as(
            target
        )
        answer, other = (kind == 2).float(), (kind == 1).float()
        hit = (logits.argmax(-1) == target) & (kind == 2)
        # Every sequence weighs the same, whether its answer is three words or eight UUIDs.
        answers = ((loss * answer).sum(1) / answer.sum(1).clamp(min=1)).mean()
        total = answers + OTHER_WEIGHT * (loss * other).sum() / other.sum()
        return total, torch.stack([hit.float().sum(1), answer.sum(1)], 1)

    def run(self) -> None:
        from evaluators.probe.curriculum import PHASES

        progress, started = self.progress, time.monotonic() - self.progress.seconds
        saved = printed = time.monotonic()
        while progress.seconds < self.limit:
            phase = PHASES[progress.phase]
            names = sorted(phase.mix)
            for x, at, kind, task in self._batches(progress.phase):
                loss, right = self._step(x, at, kind)
                progress.step += 1
                progress.phase_step += 1
                progress.tokens += x.shape[0] * (x.shape[1] - 1)
                if progress.step % 10 == 0:
                    self._count(names, task, right.cpu())
                now = time.monotonic()
                progress.seconds = now - started
                if now - printed > 15:
                    printed = now
                    rights = " ".join(f"{name} {value:.3f}" for name, value in sorted(progress.right.items()))
                    print(
                        f"{progress.seconds:5.0f} s step {progress.step} phase {progress.phase}"
                        f" loss {loss.item():.3f} Mtok {progress.tokens / 1e6:.0f} | {rights}",
                        flush=True,
                    )
                if now - saved > CHECKPOINT_SECONDS:
                    saved = now
                    self.save()
                if progress.seconds >= self.limit or self._phase_done(phase):
                    break
            if progress.seconds < self.limit and progress.phase + 1 < len(PHASES):
                print(
                    f"-> phase {progress.phase + 1} at {progress.seconds:.0f} s {progress.right}", flush=True
                )
                progress.phase, progress.phase_step, progress.right = progress.phase + 1, 0, {}
        self.save()

    def _phase_done(self, phase: Phase) -> bool:
        progress = self.progress
        if progress.phase_step < LEAST_STEPS or phase.latest >= 1:
            return False
        learnt = (
            bool(phase.until) and min(progress.right.get(name, 0.0) for name in phase.until) >= phase.level
        )
        return learnt or progress.seconds / self.limit >= phase.latest

    def _batches(self, phase: int) -> Iterator[tuple[torch.Tensor, ...]]:
        from torch.utils.data import DataLoader

        from evaluators.probe.curriculum import PHASES, batches

        data = _Stream(
            lambda worker: batches(
                PHASES[phase], self.tokenizer, f"{self.seed}/{phase}/{self.progress.step}/{worker}"
            )
        )
        loader: Any = DataLoader(
            data,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=self.device == "cuda",
            prefetch_factor=8 if self.workers else None,
        )
        for tensors in loader:
            yield tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)

    def _step(
        self, x: torch.Tensor, at: torch.Tensor, kind: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        share = self.progress.seconds / self.limit
        scale = min(1.0, (self.progress.step + 1) / WARMUP_STEPS)
        scale *= min(1.0, max(0.02, (1 - share) / DECAY_SHARE))
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * scale
        loss, right = self.loss(x, at, kind)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), right

    def _count(self, names: list[str], task: torch.Tensor, right: torch.Tensor) -> None:
        for index, name in enumerate(names):
            hit, all_ = right[(task == index).cpu()].sum(0).tolist()
            if all_:
                before = self.progress.right.get(name, hit / all_)
                self.progress.right[name] = 0.8 * before + 0.2 * hit / all_


def _stream_base() -> Any:
    from torch.utils.data import IterableDataset

    return IterableDataset


class _Stream(_stream_base()):  # type: ignore[misc]
    """Batches made in the loader's workers, each with its own seed."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        import torch

        info = torch.utils.data.get_worker_info()
        for batch in self.make(info.id if info else 0):
            yield tuple(torch.from_numpy(array) for array in (batch.x, batch.at, batch.kind, batch.task))


def main(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and the finished model.")],
    shape: Annotated[Shape, typer.Option(help="Shape of the attention: Qwen3's or DeepSeek-V3's.")] = "gqa",
    minutes: Annotated[float, typer.Option(help="Training time, over all resumes.")] = 14.0,
    seed: int = 0,
    device: str = "cuda",
    workers: Annotated[int, typer.Option(help="Processes that make training sequences.")] = 14,
    compiled: Annotated[bool, typer.Option(help="Compile the model (a GPU wants it).")] = True,
    samples: Annotated[
        int, typer.Option(help="Dense evaluation samples a task and length; 0 for none.")
    ] = 100,
    batch: Annotated[int, typer.Option(help="Prompts a batch of the dense evaluation.")] = 100,
) -> None:
    """Train the probe model (or resume), write it in bf16, and measure its dense accuracy."""
    from evaluators.probe.dense import dense_accuracy, table
    from evaluators.probe.load import load

    out.mkdir(parents=True, exist_ok=True)
    random.seed(seed)
    trainer = Trainer(out, minutes, seed, device, workers, compiled, shape)
    trainer.run()
    trainer.write(out / "model")
    if samples:
        model, tokenizer = load(out / "model")
        scores = dense_accuracy(model.to(device), tokenizer, samples=samples, batch=batch)
        (out / "dense.json").write_text(json.dumps([vars(score) for score in scores], indent=1))
        print(table(scores), flush=True)


if __name__ == "__main__":
    typer.run(main)
