"""The target where nobody names one: generated kernels on a GPU, PyTorch elsewhere."""

from __future__ import annotations


def default_target(device: str) -> str:
    """The name of the target on a type of device ("cuda", "cpu")."""
    return "triton" if device == "cuda" else "torch"
