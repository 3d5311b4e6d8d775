"""Which kernels a sparse layer of each shipped flow starts in a decode step: `python -m
vortex.kernels.launches` prints the table of docs/kernels.md."""

from __future__ import annotations

from collections.abc import Iterator

from vortex.flow import get, list_keys, load_graph, vFlowMLA
from vortex.graph.geometry import Geometry
from vortex.targets.triton import TritonProgram

AFTER_SCORES = ("topk", "attention")
"""The selection and the attention over what it chose: one launch each."""


def program_of(flow: str) -> TritonProgram:
    """A flow for a layer of Qwen3-8B, or of GLM-4.7-Flash where it reads latents."""
    latent = issubclass(get(flow), vFlowMLA)
    geometry = Geometry.mla(32, 512, 64, 20) if latent else Geometry(16, 128, 4)
    return TritonProgram(load_graph(flow, geometry=geometry), geometry, "bfloat16")


def kernels_of(program: TritonProgram) -> list[str]:
    """Names in the order of the launches. Ops that PyTorch runs, in launches of its own, are in brackets."""
    found = {kernel.stage.number if kernel.stage else 0: [kernel.name] for kernel in program.module.kernels}
    for stage in program.schedule.stages:
        ops = [f"[{program.indexer[index].op.name}]" for index in stage.outside]
        found.setdefault(stage.number, []).extend(ops)
    return [name for number in sorted(found) for name in found[number]]


def rows() -> Iterator[tuple[str, list[str]]]:
    """Every shipped flow with its kernels, those after the scores included."""
    import vortex.flow.algorithms  # noqa: F401

    for flow in list_keys():
        if get(flow).__module__.startswith("vortex."):
            yield flow, [*kernels_of(program_of(flow)), *AFTER_SCORES]


def table() -> str:
    """Markdown."""
    lines = ["| flow | kernels | in the order of their launches |", "|---|---|---|"]
    for flow, kernels in rows():
        count = sum(not name.startswith("[") for name in kernels)
        lines.append(f"| {flow} | {count} | {', '.join(kernels)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
