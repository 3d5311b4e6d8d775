from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evaluators.probe import train
from evaluators.probe.curriculum import Phase, batches
from evaluators.probe.load import load
from evaluators.probe.model import MODEL_TYPES, Shape
from evaluators.probe.train import CheckpointError, Trainer

ROOT = Path(__file__).parents[3]
SHAPES = tuple(MODEL_TYPES.values())
SIZES = {
    "LAYERS": 1,
    "HIDDEN": 32,
    "QUERY_HEADS": 2,
    "HEAD_DIM": 16,
    "GQA": {"intermediate_size": 64, "num_key_value_heads": 1},
    "MLA": {"intermediate_size": 64, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8},
}


def start(out: Path, minutes: float, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(out), str(minutes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)


def progress(checkpoint: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(checkpoint, weights_only=True)["progress"]
    return found


def test_a_killed_run_goes_on_from_its_checkpoint_and_finishes(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    checkpoint = out / "checkpoint.pt"
    run = start(out, 60.0, log)
    try:
        end = time.monotonic() + 60
        while not checkpoint.exists() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert checkpoint.exists(), log.read_text()
    finally:
        run.send_signal(signal.SIGKILL)
        assert run.wait(20) == -signal.SIGKILL
    before = progress(checkpoint)
    assert before["step"] > 0
    assert not (out / "model").exists()

    minutes = (before["seconds"] + 3.0) / 60
    begun = time.monotonic()
    run = start(out, minutes, log)
    try:
        assert run.wait(90) == 0, log.read_text()
    finally:
        run.kill()
    said = re.search(r"resumed at step (\d+)", log.read_text())
    assert said is not None, log.read_text()
    assert int(said[1]) == before["step"]
    after = progress(checkpoint)
    assert after["step"] > before["step"]
    assert after["tokens"] > before["tokens"]
    # The time is counted over both runs: the second one only trains for what is left.
    assert 60 * minutes <= after["seconds"] <= before["seconds"] + time.monotonic() - begun
    assert after["phase"] == 1
    _loads(out / "model")


def _loads(folder: Path) -> None:
    import torch

    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    model, tokenizer = load(folder)
    assert model.config.num_hidden_layers == 1
    ids = torch.tensor([tokenizer.encode("The grass is green.")])
    assert torch.isfinite(model(ids).logits).all()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    monkeypatch.setattr("evaluators.probe.tokenizer.build", lambda: tokenizer)
    for name, value in SIZES.items():
        monkeypatch.setattr(f"evaluators.probe.model.{name}", value)


def trainer(out: Path, shape: Shape = "gqa") -> Trainer:
    return Trainer(out, 1.0, 0, "cpu", 0, False, shape)


@pytest.mark.usefixtures("small")
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path).save()
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    assert trainer(tmp_path).progress.step == 0
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match=r"checkpoint\.pt is damaged or of another model.*; delete it to train"
        ):
            trainer(tmp_path)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match=r"of another model"):
        trainer(tmp_path, "mla")
    monkeypatch.setattr("evaluators.probe.model.HIDDEN", 64)
    with pytest.raises(CheckpointError, match=r"of another model"):
        trainer(tmp_path)


@pytest.mark.usefixtures("small")
def test_a_checkpoint_holds_all_that_training_needs(tmp_path: Path, tokenizer: Any) -> None:
    import torch

    phase = Phase((256,), {"drill": 1.0}, (), 1.0, 1.0, tokens=512)
    feed = batches(phase, tokenizer, "0")
    steps = [[torch.from_numpy(a) for a in (b.x, b.at, b.kind)] for b in (next(feed) for _ in range(4))]
    first = trainer(tmp_path)
    for batch in steps[:2]:
        first._step(*batch)
        first.progress.step += 1
    first.save()
    second = trainer(tmp_path)
    assert second.progress == first.progress
    for batch in steps[2:]:
        losses = [t._step(*batch)[0] for t in (first, second)]
        assert torch.equal(*losses)
        first.progress.step += 1
        second.progress.step += 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", SHAPES)
def test_training_lowers_the_loss(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, shape: Shape
) -> None:
    import torch

    monkeypatch.setattr(train, "WARMUP_STEPS", 5)
    phase = Phase((256,), {"niah_multikey_1": 1.0}, (), 1.0, 1.0, tokens=512)
    run, losses = trainer(tmp_path, shape), []
    feed = batches(phase, tokenizer, "0")
    for _ in range(20):
        batch = next(feed)
        losses.append(run._step(*(torch.from_numpy(a) for a in (batch.x, batch.at, batch.kind)))[0].item())
        run.progress.step += 1
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("model_type", "shape"), MODEL_TYPES.items())
def test_the_written_model_answers_as_the_trained_one(tmp_path: Path, model_type: str, shape: Shape) -> None:
    import torch

    run = trainer(tmp_path, shape)
    trained = copy.deepcopy(run.model).eval()
    for weight in trained.parameters():
        weight.data = weight.data.bfloat16().float()
    run.write(tmp_path / "model")
    model, tokenizer = load(tmp_path / "model")
    assert model.config.model_type == model_type
    ids = torch.randint(0, len(tokenizer), (2, 20))
    torch.testing.assert_close(model(ids).logits, trained(ids).logits)
    # Left padding needs a mask, which the loaded model makes and training leaves out.
    padded = torch.cat([torch.full((2, 5), tokenizer.pad_token_id), ids], 1)
    mask = torch.cat([torch.zeros(2, 5, dtype=torch.long), torch.ones_like(ids)], 1)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    shifted = model(padded, attention_mask=mask, position_ids=position).logits[:, 5:]
    torch.testing.assert_close(shifted, trained(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small")
def test_a_phase_ends_when_it_is_learnt_or_at_its_latest(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    phase = Phase((256,), {"vt": 0.5, "fwe": 0.5}, ("vt",), 0.9, 0.5)
    run.progress.phase_step = train.LEAST_STEPS
    assert not run._phase_done(phase)
    run.progress.right = {"vt": 0.95}
    assert run._phase_done(phase)
    run.progress.phase_step = train.LEAST_STEPS - 1
    assert not run._phase_done(phase)
    run.progress.phase_step, run.progress.right, run.progress.seconds = train.LEAST_STEPS, {"fwe": 1.0}, 30.0
    assert run._phase_done(phase)  # half of one minute
    last = Phase((256,), {"vt": 1.0}, ("vt",), 0.9, 1.0)
    run.progress.right = {"vt": 1.0}
    assert not run._phase_done(last)
