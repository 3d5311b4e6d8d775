"""What the SGLang engine does on a GPU: one sub-command a number (`python -m benchmarks.sglang --help`)."""
