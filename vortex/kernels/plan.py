"""The plan of a decode step on the device: counts by the policy, work lists and the block table, in one
launch.

On CPU tensors `plan_cpu.py` fills the same buffers with the same numbers.
"""

from __future__ import annotations

import numpy as np
import torch

from vortex.budget import Rule, chosen_blocks
from vortex.budget.compiled import policy_of
from vortex.config import VortexConfig
from vortex.errors import ConfigError
from vortex.kernels.plan_count import MOST_REQUESTS, Count, Crossover
from vortex.kernels.plan_cpu import plan_on_cpu
from vortex.kernels.plan_cuda import PlanKernel
from vortex.runtime.device import DeviceStep, StepSize


def longest_list(policy: Rule | None, config: VortexConfig, blocks: int, listed: int | None) -> int:
    """Blocks in the longest list of a sparse row of up to `blocks` blocks; where no row is sparse, in the
    shortest list that there is."""
    n = np.arange(1, blocks + 1)
    chosen = chosen_blocks(policy, n, config)
    read = chosen if listed is None else np.minimum(n, listed)
    shortest = config.block_reserved_bos + config.block_reserved_eos + 1
    return int(read[chosen < n].max(initial=shortest))


class Planner:
    """Plans steps of up to `size` for the budget of `config`, whose policy is compiled in. Raises PolicyError
    with the compiler's message.

    `listed`: blocks that a sparse row of a Union reads at most; None where it reads what the policy says.
    `crossover` None: steps are sparse wherever the policy says so.

    `size.chosen` is what the host finds to be the longest list. Should the policy say more on the device, a
    sparse row has a list of that length all the same, and is counted with the blocks that it reads.
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
        if size.parts * size.blocks >= 2**31:
            raise ConfigError(f"a step of {size.requests} requests of {size.blocks} blocks is too large")
        self.size, self.config, self.crossover = size, config, crossover
        self.policy = policy_of(config)
        longest = longest_list(self.policy, config, size.blocks, listed)
        if size.chosen < longest:
            raise ConfigError(f"lists of {size.chosen} blocks: the policy chooses up to {longest}")
        self.listed = None if listed is None else min(listed, size.chosen)
        self.counts = torch.zeros(len(Count), dtype=torch.int64, device=device)
        """See `Count`; accumulated on the device, reading them waits for it."""
        self._kernel = PlanKernel(self, self.counts.device) if self.counts.is_cuda else None

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
        if len(seq_len) > self.size.requests:
            raise ValueError(f"{len(seq_len)} requests in a step of at most {self.size.requests}")
        if self._kernel is None:
            plan_on_cpu(self, step, seq_len, requests, req_to_token)
        else:
            self._kernel.run(step, seq_len, requests, req_to_token)
