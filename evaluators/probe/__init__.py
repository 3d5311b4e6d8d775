"""The probe model: a 7.8M-parameter Qwen3, trained from nothing on this project's RULER prompts.

Small enough to ship, good enough to tell sparse attention that finds things from sparse attention that does
not. Its accuracy is its own: it says nothing of a large model's.
"""

from evaluators.probe.load import PROBE_PATH, load, model_label

__all__ = ["PROBE_PATH", "load", "model_label"]
