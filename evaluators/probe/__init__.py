"""The probe models: a Qwen3 and a DeepSeek-V3 of 8M parameters, trained from nothing on this project's RULER
prompts.

Small enough to ship, good enough to tell sparse attention that finds things from sparse attention that does
not. Their accuracy is their own: it says nothing of a large model's.
"""

from evaluators.probe.load import MLA_PROBE_PATH, PROBE_PATH, load, model_label

__all__ = ["MLA_PROBE_PATH", "PROBE_PATH", "load", "model_label"]
