"""The plan of a decode step, on the device: counts by the policy, work lists and the block table, in one launch.

On CPU tensors `plan_cpu.py` fills the same buffers with the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch

from vortex.budget.compiled import policy_of
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.runtime.device import DeviceStep, StepSize

PART_TOKENS = 128
"""Attention work is not cut into parts of fewer tokens."""
PART_COST = 64
"""What a part costs beside its tokens, in tokens: its partial result is written, read and merged."""
CUTS = 32
"""How many sizes of a part are compared: eighths of the even share of a program."""
MOST_REQUESTS = 8192


class Count(IntEnum):
    """Places of `Planner.counts`. Blocks are summed over kv heads, not over layers; steps without a sparse
    request count as steps and nothing else."""

    STEPS = 0
    SPARSE_STEPS = 1
    ROWS_SPARSE = 2
    ROWS_DENSE = 3
    BLOCKS_READ = 4
    """Of a Union only those of dense rows: the others are known when a layer has chosen."""
    BLOCKS_TOTAL = 5
    CHUNKS = 6
    BLOCKS_FINISHED = 7
    """Blocks that tokens of these steps completed, in all steps."""
    CROSSOVER_STEPS = 8
    """Steps made dense because that is faster."""
    UNION_READ = 9
    """Blocks that sparse rows of a Union read, over layers too."""


@dataclass(frozen=True)
class Crossover:
    """When to read everything: a step is dense if `dense + dense_block * n` is at most `sparse + score_block
    * scored + chosen_block * read`, in microseconds a layer, where n, scored and read are sums of blocks over
    the requests of the step. float32, in this order of operations."""

    dense: float
    dense_block: float
    sparse: float
    score_block: float
    chosen_block: float


class Planner:
    """Plans steps of up to `size` for the budget of `config`, whose policy is compiled in. Raises PolicyError
    with the compiler's message.

    `listed`: blocks that a sparse row of a Union reads at most; None where it reads what the policy says.
    `crossover` None: steps are sparse wherever the policy says so.
    """

    def __init__(
        self,
        size: StepSize,
        config: VortexConfig,
        device: torch.device | str = "cpu",
        *,
        listed: int | None = None,
        crossover: Crossover | None = None,
    ) -> None:
        if size.requests > MOST_REQUESTS:
            raise ConfigError(f"a step of {size.requests} requests: at most {MOST_REQUESTS} are planned")
        self.size, self.config, self.listed, self.crossover = size, config, listed, crossover
        self.policy = policy_of(config)
        self.counts = torch.zeros(len(Count), dtype=torch.int64, device=device)
        """See `Count`; accumulated on the device, reading them waits for it."""

    def run(
        self,
        step: DeviceStep,
        seq_len: torch.Tensor,
        requests: torch.Tensor | None = None,
        req_to_token: torch.Tensor | None = None,
    ) -> None:
        """Fill `step` for `seq_len [batch]` tokens, the current ones included, int32 or int64; 0 is a request
        with nothing to do, and so are those of the step from `batch` on. One launch, which neither allocates
        nor waits.

        `requests [batch]`, int32 or int64: the numbers of the requests, which own their request fields; None:
        0 to batch - 1. `req_to_token [numbers, context]`, int32: the pool's slot of each token of each
        request, from which the table is read; None: `step.table` is left as it is. Blocks lie in consecutive
        slots, the first of which is a multiple of the block size.
        """
        raise NotImplementedError
