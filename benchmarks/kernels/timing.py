"""Device times. Work is captured in a CUDA graph that runs it on several layers in turn, so that what one
run reads is out of the L2 cache before it is read again; eager times leave the graph out.
"""

from __future__ import annotations

import ctypes
import functools
import statistics
from collections.abc import Callable, Sequence

import torch
from pydantic import BaseModel, ConfigDict

Work = Callable[[], object]

WARM_UP, LEAST, MOST, SECONDS = 5, 20, 200, 0.15
"""Untimed runs; timed runs at least and at most; the time after which no more than the least are needed."""
L2_BYTES = 50e6
KERNEL_NODE = 0  # cudaGraphNodeTypeKernel


class Timing(BaseModel):
    """Microseconds of one unit of work: median, and the 10th and 90th percentile of `runs`."""

    model_config = ConfigDict(frozen=True)

    us: float
    p10: float
    p90: float
    runs: int

    def __str__(self) -> str:
        return f"{self.us:.1f}"


def rotation(touched: float, room: int) -> int:
    """Layers to go round so that several times the L2 lies between two readings of the same bytes: at least
    16, so that the launch of the graph disappears in the mean, where there is `room`."""
    return max(1, min(room, 48, max(16, -(-int(6 * L2_BYTES) // int(touched)))))


def capture(works: Sequence[Work]) -> torch.cuda.CUDAGraph:
    """The works, one after the other, in one graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for work in works:
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        for work in works:
            work()
    graph.instantiate()
    return graph


def timed(run: Work, per: int = 1) -> Timing:
    """One call of `run` is `per` units of work."""
    for _ in range(WARM_UP):
        run()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and sum(times) < SECONDS * 1e3):
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(10)]
        for start, end in pairs:
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        times += [start.elapsed_time(end) for start, end in pairs]
    tenths = statistics.quantiles(times, n=10)
    median = statistics.median(times)
    return Timing(
        us=median / per * 1e3, p10=tenths[0] / per * 1e3, p90=tenths[-1] / per * 1e3, runs=len(times)
    )


def in_graph(works: Sequence[Work]) -> Timing:
    """One of the works, as part of a graph that holds them all."""
    return timed(capture(works).replay, len(works))


def eager(works: Sequence[Work]) -> Timing:
    """One of the works, launched from Python."""

    def run() -> None:
        for work in works:
            work()

    return timed(run, len(works))


def launches(works: Sequence[Work]) -> float:
    """Kernels, copies and memsets of one of the works: the nodes of its graph."""
    return len(node_types(capture(works))) / len(works)


def node_types(graph: torch.cuda.CUDAGraph) -> list[int]:
    """The CUDA type of each node of a captured graph."""
    runtime, handle = _runtime(), ctypes.c_void_p(graph.raw_cuda_graph())
    count = ctypes.c_size_t()
    _check(runtime.cudaGraphGetNodes(handle, None, ctypes.byref(count)))
    nodes = (ctypes.c_void_p * count.value)()
    _check(runtime.cudaGraphGetNodes(handle, nodes, ctypes.byref(count)))
    found = []
    for node in nodes:
        kind = ctypes.c_int()
        _check(runtime.cudaGraphNodeGetType(ctypes.c_void_p(node), ctypes.byref(kind)))
        found.append(kind.value)
    return found


def by_kernel(works: Sequence[Work], replays: int = 5) -> dict[str, float]:
    """Microseconds of each kernel in one of the works, in the order of their launches: as the profiler sees
    them in a graph, without the gaps between them."""
    graph = capture(works)
    graph.replay()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(replays):
            graph.replay()
        torch.cuda.synchronize()
    spans = sorted(
        (event.start_ns(), event.name(), event.duration_ns())
        for event in seen.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    )
    total: dict[str, float] = {}
    for _, name, nanoseconds in spans:
        total[name] = total.get(name, 0.0) + nanoseconds / 1e3 / (replays * len(works))
    return total


def copy_bandwidth(size: int = 4 << 30) -> float:
    """Bytes a second of a device copy, counting those read and those written."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / (timed(lambda: target.copy_(source)).us * 1e-6)


@functools.cache
def _runtime() -> ctypes.CDLL:
    """The CUDA runtime that PyTorch has loaded."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        loaded = {line.split()[-1] for line in maps if "libcudart" in line}
    return ctypes.CDLL(min(loaded))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"the CUDA runtime answered {status}")
