"""CUDA graphs of decode steps: captured again when the flow changes, since they hold its kernels."""

from __future__ import annotations

from typing import Any


def recapture(runner: Any) -> None:
    """Capture a model runner's decode graphs for what is deployed now; nothing where it has none. No request
    may be running."""
    from sglang.srt.model_executor.runner import DecodeCudaGraphRunner
    from sglang.srt.model_executor.runner_utils.capture_mode import model_capture_mode

    graphs = runner.decode_cuda_graph_runner
    if not isinstance(graphs, DecodeCudaGraphRunner):
        return
    held = dict(getattr(graphs.backend, "_graphs", {}))  # torch gives up a pool that no graph uses
    graphs.backend.cleanup()
    with model_capture_mode():
        graphs.capture()
    held.clear()
