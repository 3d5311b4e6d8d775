"""Building and launching `plan.cu`."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch

from vortex.budget.policy import default_policy
from vortex.errors import PolicyError
from vortex.kernels import cuda
from vortex.kernels.plan_count import CUTS, PART_COST, PART_TOKENS, Count
from vortex.runtime.device import DeviceStep

if TYPE_CHECKING:
    from vortex.kernels.plan import Planner

_POINTERS = (
    "seq_len", "requests", "req_to_token", "length", "n", "chosen", "owner", "table", "chunks", "chunk_count",
    "parts", "part_first", "part_count", "counts",
)  # fmt: skip
_INTS = (
    "numbers", "batch", "wide_lengths", "wide_requests", "size", "heads", "blocks", "width",
    "block_shift", "chunk_shift", "bos", "eos", "share", "programs", "room", "topk_val", "max_topk_val",
    "listed",
)  # fmt: skip
_FLOATS = ("dense", "dense_block", "sparse", "score_block", "chosen_block")


class _Plan(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("context", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in _INTS),
        ("topk_ratio", ctypes.c_float),
        ("crossover", ctypes.c_int),
        *((name, ctypes.c_float) for name in _FLOATS),
    ]


def plan_source(policy: str) -> str:
    """The source of the planner with a policy (`Rule.cuda()`) in it."""
    limits = {"PART_TOKENS": PART_TOKENS, "PART_COST": PART_COST, "CUTS": CUTS}
    numbers = "\n".join(f"constexpr int {name} = {value};" for name, value in limits.items())
    counters = ", ".join(f"{count.name} = {count.value}" for count in Count)
    rest = (cuda.HEADERS / "plan.cu").read_text()
    return f'{policy}\n#line 1 "limits"\n{numbers}\nenum {{ {counters} }};\n#line 1 "plan.cu"\n{rest}'


class PlanKernel:
    """The planner of one policy, compiled for the device of a `Planner`."""

    def __init__(self, planner: Planner, device: torch.device) -> None:
        self.planner = planner
        policy = planner.policy or default_policy()
        try:
            library = cuda.build(
                "plan",
                plan_source(policy.cuda()),
                cuda.architecture(device),
                planner.config.compilation_cache_dir,
            )
        except cuda.BuildError as error:
            if planner.policy is None:
                raise
            raise PolicyError(f"with this schedule_policy {error}") from None
        self._launch = cuda.load(library).vortex_plan
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count
        self._plan = _constants(planner)

    def run(
        self,
        step: DeviceStep,
        seq_len: torch.Tensor,
        requests: torch.Tensor | None,
        req_to_token: torch.Tensor | None,
    ) -> None:
        """See `Planner.run`."""
        plan = self._plan
        plan.batch = len(seq_len)
        plan.seq_len, plan.wide_lengths = seq_len.data_ptr(), seq_len.dtype == torch.int64
        plan.requests = None if requests is None else requests.data_ptr()
        plan.wide_requests = requests is not None and requests.dtype == torch.int64
        plan.req_to_token = None if req_to_token is None else req_to_token.data_ptr()
        if req_to_token is not None:
            plan.numbers, plan.context = req_to_token.shape[0], req_to_token.stride(0)
        buffers = (
            ("length", step.seq_len), ("n", step.n), ("chosen", step.chosen), ("owner", step.owner),
            ("table", step.table), ("chunks", step.chunks), ("chunk_count", step.chunk_count),
            ("parts", step.parts), ("part_first", step.part_first), ("part_count", step.part_count),
            ("counts", self.planner.counts),
        )  # fmt: skip
        for name, buffer in buffers:
            setattr(plan, name, buffer.data_ptr())
        cuda.check(self._launch(ctypes.byref(plan), self._processors, cuda.stream()), "plan")


def _constants(planner: Planner) -> _Plan:
    size, config, crossover = planner.size, planner.config, planner.crossover
    plan = _Plan(
        size=size.requests,
        heads=size.heads,
        blocks=size.blocks,
        width=size.chosen,
        block_shift=size.block_size.bit_length() - 1,
        chunk_shift=size.chunk.bit_length() - 1,
        bos=size.bos,
        eos=size.eos,
        share=size.share,
        programs=size.programs,
        room=size.parts,
        topk_val=config.topk_val,
        max_topk_val=_limit(config.max_topk_val, size.blocks),
        listed=_limit(planner.listed, size.blocks),
        topk_ratio=config.topk_ratio,
        crossover=crossover is not None,
    )
    for name in _FLOATS if crossover is not None else ():
        setattr(plan, name, getattr(crossover, name))
    return plan


def _limit(value: int | None, blocks: int) -> int:
    """A limit of blocks: none is -1, and no row has more than `blocks`, however large the number is."""
    return -1 if value is None else min(value, blocks)
