"""Loading the shipped probe model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

PROBE_PATH = Path(__file__).parent / "weights"


def model_label(model: Path) -> str:
    """What tables and reports call the model in this folder."""
    return "shipped probe" if model.resolve() == PROBE_PATH.resolve() else str(model)


def load(path: Path = PROBE_PATH) -> tuple[Qwen3ForCausalLM, Any]:
    """The probe in float32, ready for inference, and its tokenizer; nothing is fetched from anywhere."""
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(path, local_files_only=True)
