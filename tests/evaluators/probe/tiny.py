"""The trainer on a model and phases small enough for a CPU: `tiny.py OUT MINUTES`."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluators.probe import curriculum, model, train

PHASES = (
    curriculum.Phase((256,), {"drill": 1.0}, (), 1.0, 0.2, tokens=512),
    curriculum.Phase((256,), {"niah_multikey_1": 0.5, "vt": 0.5}, (), 1.0, 1.0, tokens=512),
)
SIZES = {
    "LAYERS": 1,
    "HIDDEN": 32,
    "QUERY_HEADS": 2,
    "HEAD_DIM": 16,
    "GQA": {"intermediate_size": 64, "num_key_value_heads": 1},
}

if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    curriculum.PHASES = PHASES  # type: ignore[assignment]
    train.CHECKPOINT_SECONDS, train.LEAST_STEPS = 0.3, 5
    for name, value in SIZES.items():
        setattr(model, name, value)
    train.main(
        Path(sys.argv[1]), minutes=float(sys.argv[2]), device="cpu", workers=0, compiled=False, samples=0
    )
