"""Loading the shipped probe models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_PATH = Path(__file__).parent / "weights"
MLA_PROBE_PATH = Path(__file__).parent / "weights_mla"
_LABELS = {PROBE_PATH.resolve(): "shipped probe", MLA_PROBE_PATH.resolve(): "shipped MLA probe"}


def shipped(model: Path) -> bool:
    """Whether the model in this folder is one of this package's, which have a card."""
    return model.resolve() in _LABELS


def model_label(model: Path) -> str:
    """What tables and reports call the model in this folder."""
    return _LABELS.get(model.resolve(), str(model))


def load(path: Path = PROBE_PATH) -> tuple[PreTrainedModel, Any]:
    """The model in float32, ready for inference, and its tokenizer; nothing is fetched from anywhere."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(path, local_files_only=True)
